"""Terms that exclude each other, English: one group a line, poles between slashes, a pole's synonyms beside each other.

Invariant: words are folded and in their base form (`stems` takes inflections off). A line that begins with "!" is of
words with many uses: it counts only where both sides have a pole of their own. Written by hand for this project.
"""

OPPOSED = """
enable activate / disable deactivate
!on / off
turnon switchon / turnoff switchoff
start launch begin / stop halt end finish terminate quit
open / close shut
show display reveal / hide conceal
add append insert / remove delete erase subtract / replace
create make build / delete destroy remove
install / uninstall / reinstall / update upgrade / downgrade
upgrade / downgrade
update / rollback revert
import / export
input / output
upload / download
push / pull / fetch
read / write / execute
get fetch / set / post / put / patch
load / unload / save
save / discard
encrypt / decrypt / sign
encryption / decryption
encode / decode
compress zip / decompress unzip extract
serialize / deserialize
lock / unlock
login signin logon / logout signout logoff / signup register
subscribe / unsubscribe
follow / unfollow
block ban / unblock unban
mute / unmute
bind / unbind
mount / unmount
connect / disconnect
attach / detach
link / unlink
pause / resume
freeze / unfreeze thaw melt
archive / unarchive restore
backup / restore
undo / redo
commit / rollback / stash
merge / split / rebase
join / leave / split
include / exclude
allow permit authorize whitelist / deny forbid block prohibit reject refuse blacklist
accept approve / reject decline refuse deny
grant / revoke
assign / unassign
confirm / cancel
schedule book / cancel / reschedule
win / lose
pass / fail
succeed success / fail failure
increase raise grow / decrease reduce lower lessen / double / halve
increment / decrement
expand enlarge extend / shrink contract shorten
lengthen / shorten
zoomin / zoomout
rise / fall drop
gain / lose loss
grow / shrink
maximize maximise / minimize minimise
max maximum / min minimum / average mean / median
upper / lower
high / low / medium
higher / lower
highest / lowest
tall / short
taller / shorter
tallest / shortest
long / short
longer / shorter
longest / shortest
big large / small little tiny / medium
bigger larger greater / smaller lesser
biggest largest greatest / smallest least
fast quick / slow
faster quicker / slower
fastest quickest / slowest
fewer / more
!more / less
most / least / fewest
!good / bad
better / worse
best / worst
cheap inexpensive / expensive costly
cheaper / pricier
cheapest / priciest
easy simple / hard difficult
easier simpler / harder
easiest simplest / hardest
strong / weak
stronger / weaker
heavy / light
heavier / lighter
hot / cold / warm
hotter warmer / colder cooler
warm / cool
heat / cool
wet / dry
early / late
earlier / later
earliest / latest
old / young / new
older / newer / younger
oldest eldest / newest latest youngest
first / last / middle / second / third / final
initial / final
previous past / next / current / last
past / present / future
before / after / during
ago / hence
above over / below under beneath
!up / down
upstream / downstream
upward / downward
!left / right / center
leftmost / rightmost
top / bottom
front / back
frontend / backend / fullstack
forward / backward backwards
north / south / east / west
northern / southern / eastern / western
inside / outside
indoor indoors / outdoor outdoors
internal / external
inner / outer / cross
interior / exterior
inbound incoming / outbound outgoing
!in / out
enter entry entrance / exit
arrive arrival / depart departure
come / go
push / pop / peek
enqueue / dequeue
for / against
!from / to
always / never / sometimes / often / rarely
everyone everybody / nobody / someone
everything / nothing / something
everywhere / nowhere
!all every each / none no / some
both / neither / either
!and / or
true / false
yes / no
positive / negative / neutral
plus / minus
add / subtract
multiply multiplication / divide division
addition / subtraction
sum / difference / product / quotient
numerator / denominator
odd / even
same identical / different
equal / unequal
similar / different
public / private / protected
local / global / remote
static / dynamic
absolute / relative
manual manually / automatic automatically / auto
sync synchronous / async asynchronous
serial sequential / parallel
online / offline
wired / wireless
hardware / software / firmware
client / server
master primary / slave replica secondary / tertiary
leader / follower
primary / replica
parent / child
ancestor / descendant
producer / consumer / broker
publisher publish / subscriber
sender send / receiver recipient receive
request / response
encoder / decoder
host / guest
admin administrator / user / guest
http / https
tcp / udp
ftp / sftp
ssh / telnet
ipv4 / ipv6
http / ftp
wifi / ethernet / bluetooth
imap / pop / smtp
sql / nosql
json / xml / yaml / csv / toml
html / css / javascript
jpg jpeg / png / gif / svg / webp
pdf / docx word / epub
mp3 / mp4 / wav
row / column
horizontal horizontally / vertical vertically / diagonal
width / height / depth / length
portrait / landscape
ascending asc / descending desc
ascend / descend
prefix / suffix
uppercase / lowercase
head / tail
header / footer
mutable / immutable
stateful / stateless
abstract / concrete
syntax / semantics
compile / interpret
compiler / interpreter
debug / release
development dev / production prod / staging
stable / unstable / beta / alpha / nightly
valid / invalid
safe / unsafe dangerous
secure / insecure
legal / illegal
possible / impossible
visible / invisible
available / unavailable
complete / incomplete
correct right / incorrect wrong
known / unknown
necessary / unnecessary / optional / mandatory required
optional / required
official / unofficial
formal / informal
direct / indirect
active / inactive / passive
healthy / unhealthy
happy / sad / angry
happy / unhappy
married / single / divorced
alive / dead
live / die
rich / poor
full / empty
thick / thin
deep / shallow
wide / narrow
broad / narrow
loud / quiet
clean / dirty
soft / hard
smooth / rough
sweet / sour / salty / bitter / spicy
raw / cooked / baked / fried / boiled
vegan / vegetarian
male / female
man / woman
boy / girl
mother mom mum mommy / father dad daddy / parent
son / daughter
brother / sister / sibling
uncle / aunt
nephew / niece
grandfather grandpa / grandmother grandma
husband / wife / spouse
boyfriend / girlfriend
groom / bride
king / queen / prince / princess
actor / actress
!he him his / she her hers
himself / herself
men / women
buy purchase / sell / rent / lease
buyer / seller
rent / lease / own
landlord / tenant
lend / borrow
lender / borrower
employer / employee
hire / fire
teacher / student
doctor physician / nurse / patient
lawyer / judge
credit / debit / prepaid
deposit / withdraw withdrawal / transfer
refund reimburse reimbursement / charge
charge / discharge
income revenue / expense cost / profit
profit / loss
asset / liability
import / domestic
wholesale / retail
gross / net
fixed / variable / floating
bull bullish / bear bearish
supply / demand
win / draw / lose
attack / defend defence defense
offense / defense
war / peace
love / hate
friend / enemy
like / dislike
agree / disagree
trust / distrust
remember / forget
find / lose
question / answer
ask / answer
problem / solution
cause / effect / symptom / cure / treatment
cause / prevent / cure / treat
treat / prevent / diagnose
pro / con
advantage benefit / disadvantage drawback
strength / weakness
theory / practice
send / receive
give / take
push / drag
put / remove
send / retrieve
day / night
daytime / nighttime
morning / afternoon / evening / night / noon / midnight
am / pm
today / tomorrow / yesterday / tonight
monday mon / tuesday tue / wednesday wed / thursday thu / friday fri / saturday sat / sunday sun
weekday / weekend
january jan / february feb / march / april apr / may / june jun / july jul / august aug / september sept sep \
/ october oct / november nov / december dec
spring / summer / autumn fall / winter
christmas / easter / thanksgiving / halloween
hourly / daily / weekly / biweekly / fortnightly / monthly / quarterly / yearly annual annually
nanosecond / microsecond / millisecond / second / minute / hour / day / week / fortnight / month / quarter \
/ year / decade / century / millennium
hour / day / night
mile / kilometer kilometre km / meter metre / foot / inch / yard / centimeter centimetre cm / millimeter mm
kg kilogram kilo / gram / pound lb / ounce / ton tonne / stone / mg milligram
liter litre / gallon / milliliter ml / pint / cup / quart
teaspoon tsp / tablespoon tbsp / cup
celsius / fahrenheit / kelvin
bit / byte / kilobyte kb / megabyte mb / gigabyte gb / terabyte tb
dollar usd / euro eur / pound gbp / yen jpy / rupee inr / yuan rmb / franc chf / peso / bitcoin
red / blue / green / yellow / orange / purple violet / pink / brown / black / white / gray grey / gold / silver
dark / light / bright
circle / square / triangle / rectangle / sphere / cube
radius / diameter / circumference
area / volume / perimeter
speed / velocity / acceleration
mass / weight
voltage / current / resistance
solid / liquid / gas
proton / neutron / electron
anode / cathode
acid / base
oxidation / reduction
hydrogen / oxygen / nitrogen / carbon / helium
virus / bacteria / fungus
artery / vein
oral / topical / intravenous
breakfast / lunch / dinner
bus / train / plane flight / car / taxi / bike bicycle / boat ferry
departure / return
single / double / twin
singular / plural
noun / verb / adjective / adverb
vowel / consonant
fiction / nonfiction
dog / cat / bird / fish / horse
cow / pig / sheep / goat / chicken
apple / orange / banana
tea / coffee
beer / wine
rice / pasta / bread
beef / pork / chicken / lamb
windows / linux / macos mac / android / ios
iphone / android
desktop / laptop / mobile / tablet
chrome / firefox / safari / edge
keyboard / mouse
email mail / phone telephone / sms text / fax
username / password / passphrase
passport / visa
billing / shipping
order / return / exchange
freight / passenger
adult / child / infant
kid / adult
junior / senior
beginner novice / expert advanced / intermediate
basic / advanced
undergraduate / graduate / postgraduate
bachelor / master / doctorate phd
school / college university
theist / atheist
democrat / republican
left-wing / right-wing
capitalism / socialism / communism
offer / demand
bottleneck / throughput
latency / throughput / bandwidth
cpu / gpu / ram / disk
ssd / hdd
index / reindex
drop / create / alter / truncate
insert / update / delete / select
table / view / index
inclusive / exclusive
forwards / backwards
clockwise / counterclockwise anticlockwise
major / minor
majority / minority
bid / ask
ally / enemy
guilty / innocent
birth / death
born / die
murder / suicide
ancient / modern
domestic / foreign / international / national
import / local
urban / rural
nuclear / solar / wind
solar / lunar
sunrise / sunset
arrival / departure
checkin / checkout
optin / optout
pickup / dropoff
toggle / enable / disable
expire / renew / extend
renew / cancel
vertical / lateral
proof / disproof
prove / disprove
appear / disappear
obey / disobey
"""
