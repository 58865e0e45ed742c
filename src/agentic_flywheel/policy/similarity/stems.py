"""Inflections of English and French words taken off, so that "resets" meets "resetting" and "activée" meets "activer".

Invariant: inflection only, never derivation, and never so much that two words of a lexicon of opposed terms meet; both
sides of a pair are always cut by the same rules.
"""

from __future__ import annotations

import re
from functools import lru_cache

_VOWELS = frozenset("aeiouy")
#: Irregular forms that questions are full of; the rest is left unshared, which can only refuse.
_IRREGULAR = dict(
    pair.split("=")
    for pair in (
        "bought=buy sold=sell got=get gotten=get made=make went=go gone=go sent=send paid=pay lost=lose won=win"
        " wrote=write written=write read=read ran=run running=run took=take taken=take gave=give given=give came=come"
        " saw=see seen=see knew=know known=know found=find kept=keep left=left built=build began=begin begun=begin"
        " chose=choose chosen=choose broke=break broken=break spoke=speak spoken=speak drove=drive driven=drive"
        " grew=grow grown=grow fell=fall fallen=fall forgot=forget forgotten=forget hid=hide hidden=hide held=hold"
        " learnt=learn meant=mean met=meet thought=think told=tell taught=teach stole=steal stolen=steal stood=stand"
        " understood=understand wore=wear worn=wear spent=spend slept=sleep felt=feel became=become brought=bring"
        " caught=catch died=die dying=die dies=die lying=lie lies=lie tying=tie men=man women=woman children=child"
        " people=people teeth=tooth feet=foot mice=mouse lives=life wives=wife leaves=leave knives=knife shelves=shelf"
        " indices=index vertices=vertex matrices=matrix criteria=criterion phenomena=phenomenon media=media"
        " better=better worse=worse using=use used=use uses=use being=be been=be was=was were=was has=have had=have"
        " does=do did=do done=do"
    ).split()
)
_IRREGULAR_FRENCH = dict(
    pair.split("=")
    for pair in (
        "peut=pouvoir peux=pouvoir peuvent=pouvoir puis=pouvoir pourrais=pouvoir doit=devoir dois=devoir doivent=devoir"
        " faut=falloir fait=faire fais=faire font=faire faites=faire va=aller vais=aller vas=aller vont=aller est=etre"
        " sont=etre suis=etre es=etre etes=etre ai=avoir as=avoir a=avoir ont=avoir avez=avoir avons=avoir sait=savoir"
        " sais=savoir savent=savoir veut=vouloir veux=vouloir veulent=vouloir met=mettre mets=mettre mis=mettre"
        " mise=mettre prend=prendre prends=prendre pris=prendre vient=venir viens=venir lit=lire lis=lire lu=lire"
        " ecrit=ecrire ecris=ecrire dit=dire dis=dire vend=vendre vends=vendre vendu=vendre perd=perdre perdu=perdre"
        " recoit=recevoir recois=recevoir recu=recevoir ouvre=ouvrir ouvert=ouvrir ouverte=ouvrir ouverts=ouvrir"
        " ouvertes=ouvrir offert=offrir envoie=envoyer envoies=envoyer paie=payer paye=payer yeux=oeil travaux=travail"
        " chevaux=cheval journaux=journal animaux=animal nouvelle=nouveau nouvelles=nouveau nouveaux=nouveau"
        " vieille=vieux vieilles=vieux belle=beau belles=beau beaux=beau"
    ).split()
)


@lru_cache(maxsize=16384)
def stem(word: str, french: bool) -> str:
    """The word without its inflection; `word` is folded. Short words and those with digits stay as they are.

    >>> [stem(w, False) for w in ("resets", "resetting", "queries", "enabled", "buses", "class")]
    ['reset', 'reset', 'query', 'enabl', 'bus', 'class']
    >>> [stem(w, True) for w in ("activer", "activee", "activez", "journaux", "les")]
    ['activ', 'activ', 'activ', 'journal', 'les']
    """
    if french:
        return _IRREGULAR_FRENCH.get(word) or _french(word)
    return _IRREGULAR.get(word) or _english(word)


_BRITISH = re.compile(r"(?<=[a-z]{3})(?:our(?=$|s|ed|i|a|h)|is(?=e$|es$|ed$|ing$|ation))")


def _english(word: str) -> str:
    if len(word) < 4 or not word.isalpha():
        return word
    word = _BRITISH.sub(lambda found: "or" if found[0] == "our" else "iz", word)
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        bare = word[:-2] if word.endswith(("sses", "xes", "ches", "shes", "zes", "uses")) else word[:-1]
        return _english_past(bare) if len(bare) > 3 else bare
    return _english_past(word)


def _english_past(word: str) -> str:
    for ending in ("ied", "ing", "ed"):
        root = word[: -len(ending)]
        if word.endswith(ending) and len(root) >= 3 and not _VOWELS.isdisjoint(root) and not word.endswith("eed"):
            if ending == "ied":
                return root + "y"
            if len(root) > 3 and root[-1] == root[-2] and root[-1] not in "aeiouls":
                return root[:-1]
            return root
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


#: Verb endings and the feminine, after the plural's mark is gone. Long ones first.
_FRENCH_ENDINGS = (
    "issent", "issez", "erait", "aient", "erez", "era", "ait", "ant", "ent", "ai", "ez", "ee", "er", "ir", "it", "e",
)  # fmt: skip
#: Endings that many nouns have by nature (client, plaisir): taken off long words only.
_LONG = frozenset({"ent", "ant", "ir", "it", "ait", "ai", "era", "ee"})


def _french(word: str) -> str:
    if len(word) < 4 or not word.isalpha():
        return word
    if word.endswith("aux") and len(word) > 5 and not word.endswith("eaux"):
        return word[:-3] + "al"
    if (word.endswith("s") and not word.endswith("ss")) or word.endswith(("eux", "eaux", "oux")):
        word = word[:-1]
    for ending in _FRENCH_ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= (4 if ending in _LONG else 3):
            return word[: -len(ending)]
    return word
