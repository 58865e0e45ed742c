"""What stands where a secret could stand and is none: words about it, names of variables, placeholders, digests."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

_WORDS: Final = frozenset(
    # English: function words, and what is said of passwords, keys and tokens
    "a about above absent accepted accessible active after again against all allowed already also always an and any "
    "are as asked at available back bad base64 basic be because been before being below better blank blocked bool "
    "boolean both broken but by bytes cached called can cannot case-sensitive changed checked clear compromised "
    "configured confidential correct could created default defined denied deprecated detected different disabled "
    "displayed do does done each easy either empty enabled encoded encrypted enforced enough entered even every "
    "exactly expired exposed expiring false fetched field fine for forgotten forgot found from generated get given "
    "gone good guessable has hashed have hello here hidden his her how however hunter i ignored if in inactive "
    "included incorrect int integer invalid is issued it its just kept known later leaked least length less like "
    "limit limited lock locked long longer lost made mandatory masked may maybe me mine minimum mismatch missing more "
    "must my named needed needs never new next no none not nothing now null number object obsolete obsolescent of off "
    "ok okay old on once one only open optional or other our out outdated over own parameter passed people personal "
    "plain plaintext please present printed private protected provided public question random read readable ready "
    "received recommended refused regenerated rejected reliable renewed repeated replaced required reset restricted "
    "returned reusable reused revoked right rotated safe salted same saved secret secure see sensitive sent set "
    "shared short should show shown signed simple so some someone something static still stolen stored str string "
    "strong such sufficient supported than that the their them then there these they this those time to today "
    "together tomorrow too transmitted true two typed undefined unique unknown unlocked unset until unused updated us "
    "used useless user username users usually valid validated value verified very via visible wait was we weak well "
    "were what when where whether which who whole why will with within without won wrong yes yet you your yours "
    "manager managers policy policies reset rotation "
    # French
    "a absent accepte acceptee accessible actif active affiche ailleurs ajoute alors apres attendu au aucun aussi aux "
    "avant avec bien bloque bloquee bon bonne ca cache cachee car ce ceci cela celui ces change changee chiffre "
    "chiffree chez comme comment compromis compromise conserve correct correcte crypte d dans de defini definie "
    "demande demandee depuis derriere des deux different differente disponible doit donc du efface elle en encore "
    "enregistre enregistree enregistres est et exige exigee expire expiree facile faible facultatif faux fort genere "
    "generee global ici il ils inactif incorrect incorrecte inconnu inconnue indispensable interdit invalide je "
    "jamais juste l la laquelle le les leur long longue lui mais masque mauvais meme merci modifie moi mon necessaire "
    "ne ni non notre nouveau nul obligatoire ou oublie oubliee oublier par pas perdu perdue personnel personnelle "
    "plus pour pourquoi prive public quand que quel quelle quelque qui quoi rappel refuse refusee rejete renouvele "
    "reinitialise reinitialisee requis requise revoque sa sans se secret secrete securise si son sont stocke stockee "
    "stockes sur temporaire toujours tous tout toute tres trop trouve un une unique utilise utilisee valable valide "
    "verrouille vide visible vos votre voici vole vrai y".split()
)
#: Passwords that people choose most (NordPass and SplashData lists), where a plain word is one.
_COMMON: Final = frozenset(
    "azerty azertyuiop qwerty qwertyuiop letmein iloveyou jetaime motdepasse doudou loulou soleil chouchou swordfish "
    "dragon sunshine princess football baseball superman batman starwars trustno monkey marseille bonjour "
    "nicolas".split()
)
_ALGORITHM: Final = re.compile(
    r"(?:sha|hs|rs|es|ps|md|aes|pbkdf|argon|bcrypt|scrypt|oauth|base|utf|wpa|rfc|hmac|ed|x|tls|ssl|http|v|totp|fido|saml|pkcs|"
    r"blake|rsa|ecdsa|gpt|llama|claude|kv|s3|k8s|ipv|win|windows|python|java|node|php|cp|iso)"
    r"[-_ ]?[\d.]{1,6}(?:[-_/]?[a-z0-9]{0,8}){0,2}",
    re.IGNORECASE,
)
_PLACEHOLDER: Final = re.compile(
    r"(?:[<\[{$%*(].*|.*[>}]|\.{2,}.*|x{3,}|[*•·#_?-]{2,}|"
    r"(?:your|my|the|some|an?|mon|ma|votre|ton|example|exemple|sample|test|dummy|fake|change|replace|insert|todo|placeholder)"
    r"(?:[-_.][a-z_\-]*|me|pass(?:word)?|key|token|secret|api\w*)?|\w{1,12}://.*|[a-z_\-]*(?:password|passwd|token|secret|api_?key)[a-z_\-]*|www\..*|@\w+.*)",
    re.IGNORECASE,
)
_CODE: Final = re.compile(
    r"[A-Za-z_$][\w$]*(?:(?:\.|->|::)[A-Za-z_$][\w$]*)*[(\[{].*|[A-Za-z_$]\w*(?:(?:\.|->|::)[A-Za-z_$]\w*)+"
)
_ARGUMENT: Final = re.compile(r"\w+=[A-Za-z_][\w.]*")
_QUANTITY: Final = re.compile(
    r"\d+(?:[.,]\d+)?(?:[-–]\d+)?(?:\+|%|k|m|min|mins|h|hr|hrs|s|sec|ms|d|days?|jours?|j|kb|mb|gb|bits?|bytes?|octets?|x|°|"
    r"€|\$|chars?|caract[èe]res?|tokens?)?",
    re.IGNORECASE,
)
_DATE: Final = re.compile(
    r"\d{1,4}[-/.]\d{1,2}(?:[-/.]\d{1,4})?(?:T[\d:.]+Z?)?|\d{1,2}[h:]\d{2}(?::\d{2})?(?:am|pm)?", re.IGNORECASE
)
_ACCENTS: Final = str.maketrans("àâäéèêëîïôöùûüç", "aaaeeeeiioouuuc")
_IDENTIFIER: Final = re.compile(r"[A-Za-z]+(?:[_-][A-Za-z]+)+|[a-z]+(?:[A-Z][a-z]+)+|[A-Z]+(?:_[A-Z]+)+")


def says_nothing(value: str, *, quoted: bool, linked: bool, last: bool, weak: bool) -> bool:
    """Whether what stands where a password could stand is no password.

    `linked` says that a colon or an equals sign stands before it, `last` that no word of the sentence follows it,
    `weak` that hardly anything says that there is one.
    """
    plain = value.strip("!?…'’\"").lower().translate(_ACCENTS)
    if len(value) < 4 or plain in _WORDS or _PLACEHOLDER.fullmatch(value) or len({*value}) == 1:
        return True
    if _CODE.fullmatch(value) or _ARGUMENT.fullmatch(value) or _ALGORITHM.fullmatch(value) or _DATE.fullmatch(value):
        return True
    letters = sum(character.isalpha() for character in value)
    digits = sum(character.isdigit() for character in value)
    marks = len(value) - letters - digits - sum(value.count(mark) for mark in "-_.'’/\u2011")
    if quoted and " " in value:
        return not (digits or marks) and not linked  # a title, a message; or a pass phrase
    if weak:
        return not quoted and not (len(value) >= 8 and letters and (digits or marks) and _tangled(value))
    if digits and not letters and not marks:
        return not (
            last
            and len(value) >= 4
            and (linked or digits >= 4)
            and (linked or not _QUANTITY.fullmatch(value) or digits >= 5)
        )
    if _QUANTITY.fullmatch(value):
        return True
    if letters and (digits or (marks and value[-1:] not in "!?" and (linked or value.isascii()))):
        return False
    if marks and letters and linked and last:
        return False
    if quoted:
        return bool(_IDENTIFIER.fullmatch(value)) and not linked
    if plain in _COMMON and last:
        return False
    if any(one.islower() and other.isupper() for one, other in pairwise(value)):
        return not linked and not last
    return not (linked and last and len(value) >= 5 and not _IDENTIFIER.fullmatch(value))


def _tangled(value: str) -> bool:
    """Whether letters and digits are mixed as in passwords, not as in `token2024` or `auth-v2`."""
    kinds = [0 if c.isdigit() else 1 if c.isalpha() else 2 for c in value]
    return sum(a != b for a, b in pairwise(kinds)) >= 3 or any(c in "!@#$%&*?" for c in value[:-1])


_DIGEST_BEFORE: Final = re.compile(
    r"(?:sha\d{1,3}[-:=]?|md5[-:=]?|integrity=\S{0,2}|ssh-(?:rsa|dss|ed25519)\s|ecdsa-\S{0,20}\s|SHA\d{1,3}:|base64,)$",
    re.IGNORECASE,
)
_PATH_WORD: Final = re.compile(r"[A-Za-z]{4,}")


def stands_for_another(token: str, before: str) -> bool:
    """Whether a token in disorder is public: a digest, a public key, a path of words."""
    if _DIGEST_BEFORE.search(before) or re.match(r"sha\d{3}-|AAAA[BCE][23]N", token):
        return True
    if "/" in token.strip("/"):
        parts = [part for part in token.split("/") if part]
        words = sum(len(word) for word in _PATH_WORD.findall(token) if word.islower())
        return len(parts) > 2 and words > len(token) // 2
    return False
