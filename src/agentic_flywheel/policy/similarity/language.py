"""Which language a question is in, as far as guards need to know: English, French, another, or not to be told.

Invariant: deterministic, a vote of function words and scripts, no statistics. A question without function words is
"und": guards then apply their English and French lists together.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

#: Languages that the guards have lists for; "und" is read with all of them.
GUARDED = frozenset({"en", "fr", "und"})
#: A language is told from the beginning of a text; the rest would not change it.
_READ = 2000

#: Function words by language, accents dropped. Words of several languages vote for each of them.
_MARKS = {
    "en": "the a an of is are was were am be been do does did how what why when where who which whose can could should"
    " would will shall may might must i you he she it we they my your his her its our their me us them this that these"
    " those with without from for to in on at by as if or and but not have has had there any some between into about"
    " than then much many get make don't doesn't isn't can't i'm what's",
    "fr": "le la les l un une des du de d au aux est sont etait suis es etes et ou mais donc que qu qui quoi"
    " quel quelle"
    " quels quelles comment pourquoi quand combien je j tu il elle on nous vous ils elles mon ma mes ton ta tes son sa"
    " ses notre nos votre vos leur leurs ce cet cette ces c ne n pas plus jamais rien aucun aucune sans avec dans sur"
    " sous pour par chez entre vers puis-je peut peux peut-on faut fait faire y a-t-il est-ce dois doit se s"
    " me m lequel",
    "de": "der die das den dem des ein eine einen einem einer ist sind war wie was warum wann wo wer welche welcher"
    " ich du er wir ihr sie mein meine dein und oder aber nicht kein keine mit ohne von fur zu im auf aus bei nach"
    " kann man muss soll habe hat werden wird zwischen zum zur",
    "es": "el la los las un una unos de del al es son era como que cual cuales por para cuando donde quien cuanto"
    " yo tu mi su nos y o pero no con sin en desde hasta entre se puedo puede hay hacer esta este esto porque",
    "it": "il lo la i gli le un uno una di del della dei delle al alla e sono era come che cosa quale quali perche"
    " quando dove chi quanto io mio mia con senza in da per tra fra non posso puo si nel nella questo questa",
    "pt": "o a os as um uma de do da dos das ao e sao era como que qual quais por para quando onde quem quanto eu meu"
    " minha com sem em no na entre nao posso pode se fazer isto este esta voce",
    "nl": "de het een en of maar niet geen van voor met zonder in op aan is zijn was hoe wat waarom wanneer waar wie"
    " welke ik je jij u hij wij mijn kan kun moet naar uit bij tussen dit dat wordt",
    "sv": "och att det som en ett ar inte med for pa av till hur vad varfor nar var vem jag du vi min kan ska fran",
    "pl": "i w na z do nie jest sa jak co dlaczego kiedy gdzie kto czy sie moj moge jaki jaka jakie dla od przez",
    "tr": "bir ve bu ne nasil neden nerede kim hangi mi mu icin ile degil var yok ben benim nedir",
    "id": "dan yang di ke dari ini itu bagaimana apa mengapa kapan dimana siapa saya tidak dengan untuk adalah cara",
    "vi": "la va cua cho khong nhu the nao gi tai sao khi o dau ai toi co mot nhung cac",
    "ro": "si este sunt cum ce de la cu un o pe nu care cand unde cine pentru din eu meu mea poate sau",
}
_BY_WORD: dict[str, tuple[str, ...]] = {}
for _language, _words in _MARKS.items():
    for _word in _words.split():
        _BY_WORD[_word] = (*_BY_WORD.get(_word, ()), _language)
#: Letters of Latin script that neither English nor French has: a word with one votes for "another language".
_FOREIGN = frozenset("ñßäöüąćęłńśźżčďěňřšťůžğışőűăâțșđơưåøõãìòáíóúý") - frozenset("âäöü")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


@lru_cache(maxsize=8192)
def language_of(text: str) -> str:
    """The language as a code; "und" where function words do not tell; a script's name where it is not Latin.

    >>> [language_of(q) for q in ("How do I enable TLS?", "Comment activer TLS ?", "TLS", "Wie aktiviere ich TLS?")]
    ['en', 'fr', 'und', 'de']
    >>> language_of("Как включить TLS?")
    'cyrillic'
    """
    read = unicodedata.normalize("NFKC", text[:_READ]).casefold()
    script = _other_script(read)
    if script:
        return script
    votes: Counter[str] = Counter({"es": 2} if "¿" in read else {})
    for word in set(_WORD.findall(read)):
        if not _FOREIGN.isdisjoint(word):
            votes["other"] += 1
        folded = fold(word)
        for language in _BY_WORD.get(folded, ()) or _of_elision(folded):
            votes[language] += 1
    if not votes:
        return "und"
    ours = max(votes["en"], votes["fr"])
    language, most = max(votes.items(), key=lambda vote: (vote[1], vote[0]))
    if most > ours:
        # One foreign word is a quotation or an abbreviation ("no. 5").
        return language if most >= ours + 2 or (ours == 0 and most >= 2) else "und"
    if votes["en"] == votes["fr"]:
        return "und"
    return "en" if votes["en"] > votes["fr"] else "fr"


def _of_elision(word: str) -> tuple[str, ...]:
    """French elides: "l'outil", "qu'est-ce"; "don't" and "session's" are English."""
    head, mark, tail = word.partition("'")
    if not mark:
        return ("fr",) if "-t-" in word or word.endswith(("-je", "-tu", "-il", "-elle", "-ce", "-vous")) else ()
    if head in {"l", "d", "qu", "j", "n", "s", "c", "m", "t", "jusqu", "lorsqu", "puisqu", "quelqu"}:
        return ("fr",)
    return ("en",) if tail in {"t", "s", "re", "ve", "ll", "d", "m"} else ()


def _other_script(text: str) -> str:
    """The name of the script that most letters have if it is not Latin, e.g. "cyrillic"; "" otherwise."""
    if text.isascii():
        return ""
    letters = [letter for letter in text if letter.isalpha()]
    others = [letter for letter in letters if ord(letter) > 0x24F and not 0x1E00 <= ord(letter) <= 0x1EFF]
    if len(others) * 2 <= len(letters):
        return ""
    scripts = Counter(unicodedata.name(letter, "unknown").split(" ", 1)[0].lower() for letter in others)
    name = max(scripts.items(), key=lambda found: (found[1], found[0]))[0]
    return {"cjk": "han", "hiragana": "japanese", "katakana": "japanese", "latin": ""}.get(name, name)


def fold(text: str) -> str:
    """Case folded, accents and typographic apostrophes dropped: "L’ÉTÉ" is "l'ete".

    >>> fold("L’ÉTÉ, Œuvre")
    "l'ete, oeuvre"
    """
    if text.isascii():
        return text.lower()
    text = text.casefold().translate(_TYPOGRAPHY)
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


_TYPOGRAPHY = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "œ": "oe", "æ": "ae"})
