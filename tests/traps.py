"""Pairs of questions that are nearly the same and ask for something else, and pairs that only look different.

Every line below is a frame with a gap, and words for the gap: two neighbouring words make a pair. Frames and words were
written before they were tried, from what people ask, not from the lists of the guards. `HELD_OUT` was written last and
nothing was tuned on it: its figures stand in docs/guards.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple


class Pair(NamedTuple):
    """Two questions; `kind` is what was edited, `language` "en" or "fr"."""

    kind: str
    language: str
    one: str
    other: str


TUNED = """
number en | How many calories are in {} eggs? | 2 / 3 / five / twelve / 20
number en | Can I take {} tablets of ibuprofen a day? | 1 / 2 / four / 6
number en | What is the best phone under {} dollars? | 200 / 300 / 1,000 / 1500 / five hundred
number en | Who won the world cup in {}? | 1998 / 2002 / 2018 / 2022
number en | What was the population of Norway in {}? | 1950 / 1990 / 2010
number en | How do I migrate to Django {}? | 3.1 / 3.10 / 4.2 / 5.0
number en | Is a BMI of {} normal? | 19 / 24.5 / 31
number en | What is the {} amendment about? | first / second / 4th / fourteenth
number en | What happened in World War {}? | I / II / III
number en | How many people live in cities above {} million? | 1 / two / 10
number en | Can I retire at {} with a pension? | fifty / fifty-five / sixty-two
number en | Which port does it use, {} or the default? | 8080 / 8443 / 9000
number fr | Combien de calories y a-t-il dans {} oeufs ? | 2 / trois / six / douze
number fr | Quel téléphone acheter à moins de {} euros ? | 200 / 350 / 1 000 / 1 500
number fr | Qui a gagné la coupe du monde en {} ? | 1998 / 2006 / 2018
number fr | Peut-on partir à la retraite à {} ans ? | soixante / soixante-deux / soixante-dix / quatre-vingts
number fr | Que dit l'article {} de la constitution ? | 16 / 49 / 5
number fr | Que s'est-il passé au {} siècle ? | XIXe / XXe / 18e
number fr | Comment passer à la version {} ? | 2.1 / 2.10 / 3.0
number fr | Quel est le {} président ? | premier / deuxième / troisième
unit en | How long does it take to run 10 {}? | km / miles / laps
unit en | Is 5 {} of melatonin too much? | mg / g / drops
unit en | Can a phone survive 30 {} under water? | seconds / minutes / hours
unit en | How hot is 40 degrees {}? | celsius / fahrenheit
unit en | What can I do with 100 {}? | dollars / euros / pesos
unit en | Is a 500 {} disk enough? | MB / GB / TB
unit fr | Combien de temps faut-il pour courir 10 {} ? | km / mètres / miles
unit fr | Est-ce que 5 {} de vitamine D suffisent ? | mg / g / gouttes
unit fr | Combien coûte un appartement de 40 {} par an ? | euros / dollars / francs
unit fr | Le colis arrive dans 3 {} ? | jours / semaines / mois
negation en | Which foods {} raise blood sugar? | do / do not
negation en | Why {} my code compile? | does / doesn't
negation en | Which countries {} require a visa? | / don't
negation en | How do I cook rice {} a lid? | with / without
negation en | {} I travel with an expired licence? | Can / Can't
negation en | Which birds {} fly south? | / never
negation en | Is there {} way to recover a deleted note? | a / no
negation en | What are the opening hours {} Sunday? | including / except
negation en | Is the offer {} for new customers? | / only
negation fr | Pourquoi mon code {} ? | compile / ne compile pas
negation fr | Quels aliments {} du gluten ? | contiennent / ne contiennent pas
negation fr | Peut-on conduire {} assurance ? | avec / sans
negation fr | Quels pays {} de visa ? | demandent / ne demandent pas / ne demandent plus
negation fr | Que faire si le train {} en retard ? | est / n'est pas / n'est jamais
negation fr | Le magasin ouvre-t-il tous les jours {} le lundi ? | même / sauf
negation fr | L'offre est-elle valable {} pour les étudiants ? | / uniquement
entity en | What is the weather like in {} in May? | Paris / Madrid / Oslo / New Delhi
entity en | Who founded {}? | Netflix / Spotify / IKEA / Tesla
entity en | How do I sort a list in {}? | Python / Ruby / Haskell / C++ / C#
entity en | Which vaccine do I need for {}? | Kenya / Peru / Vietnam
entity en | What are the side effects of {}? | Metformin / Lisinopril / Warfarin
entity en | How do I configure a {} proxy? | Nginx / HAProxy / Traefik
entity en | How old is {}? | Barack Obama / Angela Merkel / Lionel Messi
entity en | What does the flag {} do? | --force / --quiet / -v
entity en | What does `{}` return? | os.listdir / os.scandir / glob.glob
entity en | How do I get vitamin {}? | C / D / K
entity fr | Quel temps fait-il à {} en mai ? | Lyon / Nantes / Bruxelles / Montréal
entity fr | Qui a fondé {} ? | Carrefour / Decathlon / Renault
entity fr | Comment trier une liste en {} ? | Python / Rust / Java
entity fr | Quels sont les effets secondaires du {} ? | Doliprane / Ventoline / Tramadol
entity fr | Où se trouve {} ? | le Louvre / la Tour Eiffel / le Panthéon
lower en | what is the capital of {} | peru / chile / bolivia / mongolia
lower en | how do i uninstall {} on my laptop | skype / zoom / firefox / steam
lower en | how to grow {} indoors | basil / tomatoes / lettuce / mint
lower en | what is the price of a {} ticket to boston | train / plane / bus
lower en | how do i cook {} in the oven | salmon / chicken / potatoes / squash
lower en | symptoms of {} in children | measles / asthma / mumps / diabetes
lower en | how to translate {} into latin | courage / honor / wisdom
lower fr | quelle est la capitale du {} | pérou / chili / maroc / portugal
lower fr | comment désinstaller {} sur mon ordinateur | skype / zoom / firefox
lower fr | comment faire pousser {} en pot | du basilic / des tomates / du persil / de la menthe
lower fr | quels sont les symptômes de {} chez l'enfant | la rougeole / l'asthme / la grippe / la varicelle
lower fr | comment cuire {} au four | le saumon / le poulet / les pommes de terre
opposite en | How do I {} dark mode? | enable / disable
opposite en | How do I {} notifications? | turn on / turn off
opposite en | What is the {} salary of a pilot? | minimum / maximum / average
opposite en | What should I eat {} a workout? | before / after / during
opposite en | How do I {} a photo? | upload / download / delete
opposite en | How can I {} my heart rate? | lower / raise
opposite en | What are the {} of remote work? | advantages / disadvantages
opposite en | What is the {} river in Asia? | longest / shortest / widest
opposite en | Is it {} to rent or own a car here? | cheaper / more expensive
opposite en | Why does my {} hurt? | left knee / right knee / left shoulder
opposite en | What do I give my {} for her birthday? | mother / sister / grandmother
opposite en | How do I {} a channel? | follow / unfollow / mute
opposite en | How do I {} a table in SQL? | create / drop / rename
opposite en | Why is my {} battery draining? | phone / laptop
opposite en | When should I {} my house? | buy / sell
opposite en | How do I {} money from my account? | withdraw / transfer
opposite en | What is the {} bound of the series? | upper / lower
opposite fr | Comment {} le mode avion ? | activer / désactiver
opposite fr | Comment {} les notifications ? | afficher / masquer / supprimer
opposite fr | Quel est le salaire {} d'un pilote ? | minimum / maximum / moyen
opposite fr | Que manger {} le sport ? | avant / après / pendant
opposite fr | Quels sont les {} du télétravail ? | avantages / inconvénients
opposite fr | Quel est le fleuve le {} long d'Asie ? | plus / moins
opposite fr | Pourquoi ai-je mal au genou {} ? | gauche / droit
opposite fr | Quel cadeau pour {} ? | ma mère / ma soeur / mon frère / mon père
opposite fr | Faut-il {} une maison maintenant ? | acheter / vendre / louer
opposite fr | Comment {} un fichier ? | compresser / décompresser / renommer
opposite fr | Comment {} un message ? | envoyer / recevoir / transférer
opposite fr | La porte s'ouvre vers {} ? | l'intérieur / l'extérieur
swap en | How long is the flight from {}? | Rome to Cairo / Cairo to Rome
swap en | How do I convert {}? | euros to dollars / dollars to euros / JSON to YAML / YAML to JSON
swap en | Can {}? | a cat chase a dog / a dog chase a cat
swap en | Did {}? | Germany invade Poland / Poland invade Germany
swap en | Does {}? | stress cause insomnia / insomnia cause stress
swap en | How do I move photos {}? | from my phone to my computer / from my computer to my phone
swap en | Is {}? | glass harder than steel / steel harder than glass
swap en | What is {}? | 7 divided by 3 / 3 divided by 7
swap en | Should I eat {}? | fruit before meat / meat before fruit
swap fr | Combien de temps dure le vol {} ? | de Rome au Caire / du Caire à Rome
swap fr | Comment convertir {} ? | des euros en dollars / des dollars en euros
swap fr | Est-ce que {} ? | le stress cause l'insomnie / l'insomnie cause le stress
swap fr | {} ? | Le chat poursuit le chien / Le chien poursuit le chat
swap fr | Le verre est-il plus dur {} ? | que l'acier / que la pierre
swap fr | Faut-il manger {} ? | le fruit avant la viande / la viande avant le fruit
symbol en | What is 12 {} 4? | + / - / * / 4
symbol en | What does {} mean in code? | <= / >= / == / != / =>
symbol en | Is {} a good language for games? | C / C++ / C#
symbol en | What is a {} discount on shoes? | $20 / 20% / €20
symbol en | What is the root of x{}9? | + / - / = / ^
symbol fr | Combien font 12 {} 4 ? | + / - / *
symbol fr | Que veut dire {} dans le code ? | <= / >= / == / !=
symbol fr | Combien vaut une remise de {} ? | 20 € / 20 % / 20 $
calendar en | Is the library open on {}? | Monday / Tuesday / Saturday
calendar en | What is there to see in Iceland in {}? | March / July / December
calendar en | How do I set a {} reminder? | daily / weekly / monthly
calendar en | What is on the news {}? | today / tomorrow / yesterday
calendar fr | La bibliothèque est-elle ouverte le {} ? | lundi / mardi / samedi
calendar fr | Que voir en Islande en {} ? | mars / juillet / décembre
calendar fr | Comment programmer un rappel {} ? | quotidien / hebdomadaire / mensuel
focus en | {} was the treaty signed? | When / Where / Why
focus en | How {} is the bridge? | long / old / high
focus fr | {} le traité a-t-il été signé ? | Quand / Où / Pourquoi
"""

HARMLESS = """
plain en | How do I reset my password? | how do i reset my password / How can I reset my password? \
/ Please, how do I reset my password? / How do you reset a password?
plain en | What is the capital of Peru? | what's the capital of Peru / What is the capital of Peru ? \
/ Tell me what the capital of Peru is / Hi, what is the capital of Peru?
plain en | Why doesn't the printer work? | Why does the printer not work? / why doesnt the printer work
plain en | How many minutes are in two hours? | How many minutes are in 2 hours? \
/ how many minutes are there in two hours
plain en | What are the best books about Rome? | What are some of the best books on Rome? \
/ which are the best books about rome
plain en | Can I pay with a credit card? | Can I pay with credit cards? / could I pay with a credit card \
/ Is it possible to pay with a credit card?
plain en | What is the difference between tea and coffee? | What's the difference between coffee and tea? \
/ what is a difference between tea and coffee?
plain en | How do I sort a list in Python? | In Python, how do I sort a list? / How to sort a list in python \
/ How does one sort lists in Python?
plain en | Where can I buy a used bike? | Where can I purchase a used bike? / where could i buy a used bicycle
plain en | Is my e-mail address private? | Is my email address private? / Are my email addresses private?
plain en | How do I set up two-factor login? | How do I setup two factor login? / how do I set up 2-factor login
plain en | What does “idempotent” mean? | What does "idempotent" mean? / what does idempotent mean
plain en | Who wrote the novel Dracula? | who wrote the novel dracula / Who was it that wrote the novel Dracula?
plain en | How much does a train ticket to Boston cost? | How much do train tickets to Boston cost? \
/ how much does a ticket for the train to Boston cost
plain en | How long do hard-boiled eggs keep? | How long do hard boiled eggs keep? \
/ How long does a hard-boiled egg keep?
plain fr | Comment réinitialiser mon mot de passe ? | comment reinitialiser mon mot de passe \
/ Comment puis-je réinitialiser mon mot de passe ? \
/ Bonjour, comment réinitialiser mon mot de passe, s'il vous plaît ?
plain fr | Quelle est la capitale du Pérou ? | quelle est la capitale du perou \
/ C'est quoi la capitale du Pérou ? / Dis-moi quelle est la capitale du Pérou
plain fr | Pourquoi l'imprimante ne marche pas ? | Pourquoi l’imprimante ne marche-t-elle pas ? \
/ pourquoi l'imprimante marche pas
plain fr | Combien de minutes y a-t-il dans deux heures ? | Combien de minutes dans 2 heures ? \
/ combien y a-t-il de minutes dans deux heures
plain fr | Peut-on payer par carte ? | Est-ce qu'on peut payer par carte ? / peut on payer par carte \
/ Est-il possible de payer par carte ?
plain fr | Quelle différence entre le thé et le café ? | Quelle est la différence entre le café et le thé ? \
/ quelle difference entre thé et café
plain fr | Comment trier une liste en Python ? | En Python, comment trier une liste ? \
/ Comment trier des listes en python
plain fr | Où acheter un vélo d'occasion ? | Où puis-je acheter un vélo d'occasion ? / ou acheter un velo d’occasion
plain fr | Comment supprimer mon compte ? | Comment puis-je supprimer mon compte ? \
/ Comment effacer mon compte ? / comment faire pour supprimer mon compte
plain fr | Quels documents faut-il pour louer une voiture ? | Quel document faut-il pour louer une voiture ? \
/ quels documents pour louer une voiture svp
"""

HELD_OUT = """
number en | How do I divide a pizza among {} guests? | 7 / nine / 11 / thirteen
number en | Can a {} year old open a bank account? | 15 / 16 / eighteen
number en | What is the tax on a salary of {}? | 45k / 45,500 / 54000
number en | Who was the {} person on the moon? | first / third / tenth
number en | How do I install Node {}? | 18 / 20.1 / 20.10
number fr | Comment partager une tarte entre {} invités ? | sept / neuf / 11
number fr | Un enfant de {} ans peut-il voyager seul ? | 12 / quatorze / seize
number fr | Quel impôt pour un salaire de {} euros ? | 28 000 / 32 000 / 32 500
unit en | Will 2 {} of flour be enough? | cups / spoons / pounds
unit en | Is 60 {} noise harmful? | hertz / decibel
unit en | How far can you walk in 2 {}? | hours / days
unit fr | Peut-on garder du lait ouvert 4 {} ? | heures / jours / semaines
unit fr | Est-ce que 2 {} de farine suffisent ? | tasses / cuillères / kilos
negation en | What happens if I {} my taxes late? | pay / don't pay
negation en | Which cheeses {} lactose? | contain / contain no
negation en | Do spiders {} sleep? | / ever / never
negation en | Which seats are {} reserved? | / not yet
negation fr | Que se passe-t-il si je {} mes impôts ? | paie / ne paie pas
negation fr | Quels fromages contiennent {} lactose ? | du / peu de
negation fr | Pourquoi le chat {} la nuit ? | dort / ne dort pas / ne dort jamais
entity en | When does the museum of {} open? | Vienna / Zagreb / Lima
entity en | How do I flash {} firmware? | OpenWrt / Tasmota / ESPHome
entity en | Who painted {}? | Guernica / The Scream / Nighthawks
entity en | Does {} support webhooks? | Stripe / PayPal / Adyen
entity en | What is in the file {}? | settings.py / urls.py / .env
entity fr | Quand ouvre le musée de {} ? | Vienne / Grenoble / Québec
entity fr | Qui a peint {} ? | Guernica / le Cri / la Joconde
entity fr | Est-ce que {} gère les webhooks ? | Stripe / PayPal
lower en | what currency is used in {} | thailand / hungary / ghana / iceland
lower en | how do i remove {} stains from a shirt | wine / blood / grass / ink
lower en | best {} for a small dog | bed / leash / harness / food
lower en | how much protein is in {} | tofu / lentils / yogurt / beef
lower en | how do i fix a leaking {} | tap / roof / radiator / toilet
lower fr | quelle monnaie utilise-t-on en {} | thaïlande / hongrie / islande
lower fr | comment enlever une tache de {} sur une chemise | vin / sang / café / graisse
lower fr | combien de protéines dans {} | le tofu / les lentilles / le yaourt
lower fr | comment réparer {} qui fuit | un robinet / un toit / un radiateur
opposite en | How do I {} a fever? | reduce / cause
opposite en | Is the {} tyre worn more? | front / rear
opposite en | How do I {} the volume of the alarm? | increase / decrease / mute
opposite en | What is the {} tide today? | high / low
opposite en | How do I {} the contract? | renew / terminate / amend
opposite en | What does a {} pointer look like? | dangling / null / smart
opposite en | Who pays the fee, the {}? | landlord / tenant / agent
opposite en | Is it safe to fly while {}? | pregnant / sick
opposite en | How do I {} a river on foot? | cross / follow
opposite fr | Comment faire {} la fièvre ? | baisser / monter
opposite fr | Le pneu {} est-il plus usé ? | avant / arrière
opposite fr | Qui paie les frais, {} ? | le locataire / le propriétaire / l'agence
opposite fr | Comment {} le contrat ? | renouveler / résilier / modifier
opposite fr | La marée est-elle {} ce soir ? | haute / basse
swap en | Can I transfer miles {}? | from Delta to KLM / from KLM to Delta
swap en | Why do {}? | lions hunt hyenas / hyenas hunt lions
swap en | How do I translate {}? | Greek into Turkish / Turkish into Greek
swap en | Is {}? | Mars bigger than Venus / Venus bigger than Mars
swap en | Who sued whom, {}? | Oracle against Google / Google against Oracle
swap fr | Pourquoi {} ? | les lions chassent les hyènes / les hyènes chassent les lions
swap fr | Comment traduire {} ? | du grec en turc / du turc en grec
swap fr | Comment aller {} en bus ? | de Lille à Gand / de Gand à Lille
symbol en | Why is {} false here? | a < b / a > b / a == b
symbol en | How do I type {} on a keyboard? | @ / # / ~ / €
symbol fr | Comment taper {} au clavier ? | @ / # / ~ / €
symbol fr | Pourquoi {} est-il faux ? | a < b / a > b
calendar en | Do shops close early on {}? | Friday / Sunday / Christmas Eve
calendar en | What flowers bloom in {}? | April / autumn / June
calendar fr | Quelles fleurs en {} ? | avril / automne / juin
calendar fr | Les magasins ferment-ils tôt le {} ? | vendredi / dimanche
focus en | {} did the strike end? | When / Why / How
focus fr | {} la grève a-t-elle fini ? | Quand / Pourquoi / Comment
"""


def traps(table: str = TUNED) -> list[Pair]:
    """Every two different fillings of each frame."""
    return [
        Pair(kind, language, one, other)
        for kind, language, frame, words in _lines(table)
        for one, other in combinations([" ".join(frame.replace("{}", word).split()) for word in words], 2)
    ]


def harmless() -> list[Pair]:
    """Questions with rewordings that ask for the same."""
    return [
        Pair(kind, language, question, other) for kind, language, question, words in _lines(HARMLESS) for other in words
    ]


def _lines(table: str) -> Iterator[tuple[str, str, str, list[str]]]:
    for line in table.strip().splitlines():
        head, frame, words = line.split(" | ", 2)
        kind, language = head.split()
        yield kind, language, frame, [word.strip() for word in re.split(r"(?:^| )/ ", words)]
