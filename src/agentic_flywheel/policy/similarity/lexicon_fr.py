"""Terms that exclude each other, French; written as in `lexicon`, without accents."""

OPPOSED = """
activer activation / desactiver desactivation
allumer / eteindre
demarrer commencer lancer debuter / arreter finir terminer stopper quitter
debut commencement / fin milieu
ouvrir ouverture / fermer fermeture
afficher montrer / masquer cacher
ajouter ajout inserer / supprimer suppression enlever retirer effacer / remplacer
creer creation fabriquer / supprimer suppression detruire
installer installation / desinstaller desinstallation / reinstaller / mettreajour
importer importation import / exporter exportation export
entree / sortie
entrer / sortir
envoyer envoi expedier / recevoir reception
expediteur / destinataire
emetteur / recepteur
telecharger / televerser
pousser / tirer
lire lecture / ecrire ecriture / executer execution
charger / decharger / sauvegarder
chiffrer chiffrement crypter / dechiffrer dechiffrement decrypter
encoder encodage / decoder decodage
compresser compression / decompresser decompression
verrouiller verrouillage / deverrouiller deverrouillage
connecter connexion / deconnecter deconnexion / inscrire inscription
abonner abonnement / desabonner desabonnement
bloquer blocage / debloquer deblocage
lier / delier
attacher / detacher
monter montee / descendre descente / demonter
geler congeler / degeler decongeler
reprendre / suspendre
archiver / restaurer
annuler / retablir / confirmer
fusionner / separer diviser
inclure / exclure
inclus / exclu
autoriser permettre / interdire refuser bloquer
accepter approuver acceptation / refuser rejeter refus
accorder / revoquer
gagner victoire / perdre defaite
gain / perte
benefice profit / perte / cout
reussir reussite succes / echouer echec
augmenter augmentation hausse accroitre / diminuer diminution baisser baisse reduire reduction
agrandir / reduire retrecir
allonger rallonger / raccourcir
accelerer acceleration / ralentir ralentissement
maximiser / minimiser
max maximum maximal / min minimum minimal / moyenne moyen
haut haute / bas basse
superieur / inferieur
grand grande gros grosse / petit petite / moyen
long longue / court courte
large / etroit
epais / mince fin
rapide rapidement vite / lent lente lentement
!plus / moins / autant
!bon bonne / mauvais mauvaise
meilleur meilleure mieux / pire pis
cher chere couteux / bonmarche
facile facilement simple / difficile difficilement complique dur
fort forte / faible
lourd lourde / leger legere
chaud chaude / froid froide / tiede
chauffer rechauffer / refroidir
sec seche / mouille humide
tot / tard
ancien ancienne vieux / nouveau recent / jeune neuf
premier premiere / dernier derniere / second seconde / deuxieme / troisieme / final
precedent precedente / suivant suivante / prochain / actuel actuelle
passe / present / futur avenir
avant / apres / pendant
hier / demain / aujourd'hui
dessus sur audessus / dessous sous audessous
gauche / droite / centre
devant avant / derriere arriere
nord / sud / est / ouest
dedans interieur interne / dehors exterieur externe
!pour / contre
!depuis / vers / jusque
toujours / jamais / parfois / souvent / rarement
tous toutes tout / aucun aucune nul / quelque
tout / rien
vrai vraie / faux fausse
oui / non
positif positive / negatif negative / neutre
addition additionner / soustraction soustraire
multiplication multiplier / division diviser
pair / impair
meme identique / different differente
public publique / prive privee
local / distant / global
statique / dynamique
manuel manuellement / automatique automatiquement
synchrone / asynchrone
enligne / horsligne
materiel / logiciel
client / serveur
maitre principal primaire / esclave secondaire replique
parent / enfant
producteur / consommateur
requete demande / reponse
question / reponse
administrateur / utilisateur / invite
ligne / colonne
horizontal horizontale horizontalement / vertical verticale verticalement
largeur / hauteur / profondeur / longueur
croissant croissante / decroissant decroissante
majuscule / minuscule
ascendant ascendante / descendant descendante
valide / invalide
legal / illegal
possible / impossible
visible / invisible
disponible / indisponible
complet complete / incomplet incomplete
correct / incorrect
connu / inconnu
obligatoire / facultatif optionnel
direct / indirect
actif active / inactif inactive / passif
heureux / malheureux triste
marie mariee / celibataire / divorce
vivant / mort
vivre / mourir
naitre naissance ne nee / mourir mort deces
riche / pauvre
plein pleine / vide
propre / sale
doux douce / dur
sucre / sale / amer / acide
cru / cuit
homme / femme
masculin / feminin
garcon / fille
mere maman / pere papa
fils / fille
frere / soeur
oncle / tante
neveu / niece
grandpere / grandmere
mari / femme epouse
roi / reine
!il lui / elle
acheter achat / vendre vente / louer location
acheteur / vendeur
proprietaire / locataire
preter pret / emprunter emprunt
preteur / emprunteur
employeur / employe salarie
embaucher embauche / licencier licenciement
professeur enseignant / eleve etudiant
medecin docteur / infirmier infirmiere / patient
credit / debit
crediter / debiter
deposer depot verser versement / retirer retrait / virement transferer
rembourser remboursement / facturer prelever facturation prelevement
recette revenu / depense
brut / net
fixe / variable
offre / demande
attaquer attaque / defendre defense
guerre / paix
aimer / detester hair
ami / ennemi
souvenir / oublier
trouver / perdre
cause / consequence effet / symptome / remede traitement
avantage / inconvenient
force / faiblesse
donner / prendre
arrivee arriver / depart partir
aller / retour
jour / nuit
matin / aprem soir / midi / minuit
lundi / mardi / mercredi / jeudi / vendredi / samedi / dimanche
janvier / fevrier / mars / avril / mai / juin / juillet / aout / septembre / octobre / novembre / decembre
printemps / ete / automne / hiver
noel / paques
quotidien quotidienne quotidiennement / hebdomadaire / mensuel mensuelle mensuellement / trimestriel \
/ annuel annuelle annuellement
milliseconde / seconde / minute / heure / jour journee / semaine / mois / trimestre / an annee / decennie / siecle
kilometre km / metre / centimetre cm / millimetre mm / mile
kilogramme kilo kg / gramme / tonne / milligramme mg
litre / millilitre / centilitre
celsius / fahrenheit
octet / bit
euro / dollar / livre / franc / yen
rouge / bleu bleue / vert verte / jaune / orange / violet / rose / marron / noir noire / blanc blanche / gris grise
clair claire / sombre fonce
cercle / carre / triangle / rectangle
rayon / diametre
aire surface / volume / perimetre
vitesse / acceleration
solide / liquide / gaz
dejeuner / diner / petitdejeuner
bus autobus / train / avion vol / voiture / velo / bateau
singulier / pluriel
nom / verbe / adjectif
voyelle / consonne
chien / chat / oiseau / cheval
vache / cochon porc / mouton / poulet
pomme / poire / banane / orange
the / cafe
biere / vin
telephone / courriel email mail / courrier
identifiant / motdepasse
facturation / livraison
commander commande / annuler annulation
renouveler renouvellement / resilier resiliation annuler
adulte / enfant
debutant / expert avance
majeur / mineur
majorite / minorite
coupable / innocent
moderne / ancien
national / international / etranger
urbain / rural
solaire / lunaire / eolien
apparaitre / disparaitre
prouver / refuter
chargement / dechargement
embarquement / debarquement
"""
