"""Words that carry no content of their own, words that only frame a question, and words that mean the same.

Invariant: folded, base forms; written by hand for this project. What stands in `SAME` is interchangeable in questions;
a word in `LIGHT` may be there or not without changing what is asked.
"""

STOP_ENGLISH = frozenset(
    """
    a about am an and any are as at be been being but by can could did do does doing done each for from had has have
    having he her here hers him his how i if in into is it its itself me might may more most must my myself no nor not
    of on one ones onto or other our ours out over own shall she should so some such than that the their theirs them
    then there these they this those through to too under until up upon us via was we were what whatever when where
    whether which while who whom whose why will with within without would you your yours yourself off down between
    against during before after above below all both only never always s ll re ve d m t o us i'm much many also im u ur
    """.split()
)
STOP_FRENCH = frozenset(
    """
    a ai ainsi alors apres as au aucun aucune aura aux avait avec avez avoir avons c ca car ce cela celle celles celui
    ces cet cette ceux chaque chez ci comment comme d dans de depuis des devoir dois doit donc du elle elles en encore
    entre es est et etaient etait etant etre eux faire fait fais faut font il ils j je jusqu l la laquelle le lequel les
    lesquels leur leurs lors lui m ma mais me meme mes moi mon n ne ni nos notre nous on ont ou par pas pendant peut
    peux peuvent plus moins pour pourquoi pouvoir puis qu quand que quel quelle quelles quels qui quoi rien s sa sans
    sauf se sera ses si son sont sous suis sur t ta te tes toi ton tous tout toute toutes tres tu un une va vais vers y
    vos votre vous jamais combien dont lorsque lorsqu puisque est-ce avant contre faudrait pourrait pourrais devrait
    dela afin o ete
    """.split()
)
#: Frames and politeness: present or absent, the question is the same.
LIGHT = frozenset(
    """
    please kindly thanks thank hi hello hey dear ok okay just really actually exactly basically simply currently
    tell explain describe know want need like wonder wondering ask asking help question let someone somebody anyone
    anybody person people way method manner possible able possibly exactly right now today given get use etc
    still ever even quite very well thing things something anything go going come happen happens work works mean
    is are does do good best great find show give see think idea curious sure guy guys everyone quora yet
    kind sort actual
    stp svp plait bonjour salut merci bonsoir coucou peut-etre donc vraiment exactement simplement actuellement
    expliquer expliquez explique dire dites dis savoir sais sait voudrais aimerais aimer vouloir veux souhaite
    souhaiter souhaiterais besoin question quelqu quelqu'un aider aidez aide possible moyen maniere facon utiliser
    chose bien possibles trouver donner montrer quelconque voir falloir etre avoir faire aller pouvoir devoir
    s'il sil plaisir permettre servir
    """.split()
)
SAME = """
buy purchase acquire
start begin commence
end finish
big large huge
small little tiny
fast quick quickly rapidly
job occupation
movie film
picture photo image pic photograph
phone telephone
mobile cellphone smartphone
bike bicycle
car automobile
tv television
kid child
doctor physician
teacher instructor
repair fix
error mistake
issue problem trouble
improve enhance better
increase raise boost
decrease reduce lower
choose select pick
change modify alter
delete remove erase
create make build
obtain acquire receive
permit allow let
require need
show display
assist help
answer reply respond response
speak talk
stop quit
important significant
difference distinction differ different
benefit advantage
drawback disadvantage downside
cost price expense
salary pay wage
method approach technique
company firm
country nation
city town
area region
location place
reason cause why
meaning definition define
example instance
tutorial guide
simple easy
difficult hard tough
quickly fast
lose loss
learn study
prepare preparation
earn money
rich wealthy
famous popular
biggest largest
smallest littlest
setup configure configuration
signup register registration
login signin logon
email mail
internet web
website site webpage
app application
program software
laptop computer pc
college university
exam test examination
mom mother mum
dad father
die death
kill murder
cure treat treatment remedy
symptom sign
happen occur
various several
total overall whole
purpose aim goal
major main primary
build construct make
visit go
travel trip
vacation holiday
india indian
america american usa us
china chinese
france french
britain british uk
russia russian
japan japanese
germany german
canada canadian
australia australian
near close
correct right
wrong incorrect
amount quantity
document file
directory folder
activate enable
deactivate disable
verify check validate
contact reach
cancel abort
refund reimburse reimbursement
forgot forget
relation relationship
afraid scared
hate dislike
center centre
allowed permissible
modify edit
"""
SAME_FRENCH = """
acheter achat
supprimer effacer enlever suppression
creer creation
activer activation
desactiver desactivation
installer installation
modifier changer modification changement
demarrer lancer commencer demarrage
arreter stopper arret
afficher montrer
obtenir recevoir avoir
utiliser utilisation usage employer
configurer configuration parametrer reglage
reparer corriger resoudre
erreur faute
probleme souci
rapide vite rapidement
facile simple facilement simplement
difficile complique dur
prix cout tarif coute couter
ordinateur pc
telephone portable mobile
courriel email mail
voiture auto automobile
film long-metrage
photo image
travail emploi boulot job
entreprise societe
pays nation
ville cite
raison cause
signification definition signifier definir
exemple
difference distinction differer different
avantage benefice
meilleur mieux
verifier controler verification
dossier repertoire
fichier document
application appli
site web
vacances conges
medecin docteur
etudier apprendre
choisir selectionner
annuler annulation
rembourser remboursement
livrer livraison
connecter connexion
inscrire inscription
enregistrer sauvegarder enregistrement sauvegarde
envoyer envoi
ouvrir ouverture
fermer fermeture
partager partage
se debarrasser
perdre perte
fonctionner marcher fonctionnement marche
mot-de-passe
"""
