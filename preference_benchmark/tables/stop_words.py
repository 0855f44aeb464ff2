"""The package's one list of English words that describe no item.

Function words are those of Snowball's English list (Porter 2001, as bm25s ships it) with numerals, adverbs and verbs of
being and having; ready-made longer lists would take "thick", "thin" or "front" as well (Nothman et al. 2018, "Stop Word
Lists in Free Open-source Software Packages"). Review words are what the commonest words of the Amazon 2014 reviews
(Musical Instruments, Beauty) say about buying, delivery, people and time rather than about goods, chosen by reading.
Words that judge come from VADER (Hutto & Gilbert 2014): "great" and "broke" say what a reviewer thinks of an item.
"""

from __future__ import annotations

from functools import cache

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

__all__ = ["ABSTRACT_NOUNS", "FUNCTION_WORDS", "HEADS", "REVIEW_WORDS", "stop_words"]

FUNCTION_WORDS = frozenset(
    """
    a about above across actually after again against ago ain all almost alone along already also although always am
    among an and another any anybody anyone anything anyway apart are aren aren't around as aside at away back be
    became because become been before behind being below beside between beyond both but by can can't cannot cant
    could couldn couldn't d did didn didn't didnt do does doesn doesn't doesnt doing don don't done dont down during
    each either else enough especially etc even ever every everybody everyone everything exactly except extremely
    fairly far few first five for former four from further gave get getting give given go goes going gone got had
    hadn hadn't half hardly has hasn hasn't have haven haven't having he he's her here hers herself him himself his
    how however i i'd i'll i'm i've if ill im in indeed inside instead into is isn isn't it it's its itself ive just
    keep kept knew know last least less let let's like likely ll m ma made make making many may maybe me mean might
    mightn mightn't mine more most mostly much must mustn mustn't my myself near nearly need needn needn't neither
    never next no nobody none nor not nothing now o of off often on once one only onto or other others otherwise our
    ours ourselves out outside over own particularly per perhaps pretty put quite rather re really right s said same
    saw say second see seem seen several shall shan shan't she she's should should've shouldn shouldn't since six so
    some somebody somehow someone something sometimes soon still stuff such sure t take taken taking tell ten than
    that that'll that's the their theirs them themselves then there there's therefore these they they're thing think
    this those though thought three through throughout thus to together told too took toward towards truly try
    trying turn twice two under unless until up upon us use used using usually various ve very via want wanted was
    wasn wasn't way we we're we've well went were weren weren't what what's whatever when where whether which while
    who whole whom whose why will with within without won won't wont would wouldn wouldn't y yes yet you you'd
    you'll you're you've your yours yourself yourselves
    """.split()
)

REVIEW_WORDS = frozenset(
    """
    able absolutely actual add adding allow amazing amazon amount appear arrival arrive arrived ask available
    average bad bargain basic beat beginner behave believe best better beware big bit bonus bought brainer brand
    break bring broke brother buck bucks budget build built bunch buy buyer buying came care carry cash cause cent
    chance charge cheap cheaper check choice clearer close come comes company compare comparison complaining
    complaint complaints complete completely cons consider cost count couple credit customer dad daughter day days
    deal deals decent decided definitely deliver delivered delivery deserve diameter difference different
    discontinued discount dollar doubt due dvds easily easy effort end ended entire essential exact example expect
    expected expensive experience extra fact fall fan favorite feel feet figure final find fine fit fits folks
    follow followed forget found free friend friends friggin full fully general gets gift gives giving good grab
    grandchild grandchildren granddaughter grandkids grandson great guage guess guy guys hand happen happened happy
    hard hear heard help helped helps high highly holds hope hour huge husband idea ideal immediately important
    impressed inch inches include incredible inexpensive involve issue issues item items job kid kids kind kinda
    large larger late later lbs leave left length liked line listing little living long look looked looking looks
    lot lots love loved mail main major majority makes market matter meant mention minor minute mom moment money
    month months multiple needed needs nephew new nice niece notch notice noticeable nowadays number obvious offer
    ok okay old older ones online opinion option order ordered ordering original ounce ounces outstanding overall
    owned oz package packaging paid parents part particular pay pcs people percent perfect perfectly perform person
    personal personally piece pieces place plan plays plenty plus point possible previous price priced prices pricey
    probably problem problems product products proper pros prove provide purchase purchased purchasing quality
    question quickly quote reach read real reason reasonable reasonably receive received recently recipient
    recipients recognize recommend recommended refund regular remain remember reminds remove replace replaced
    replacement require required result return returned review reviewer reviewers reviews run sale save says seems
    selected sell seller send sent service shipment shipped shipping shop short showing shown side similar simple
    simply single sister sit size small softer solve son sort specific spend standard star stars start started stay
    stop store suggest super supplier supply suppose supposed surprised takes tend test tested thank thanks theses
    things till time times tiny today total totally tried tries trouble true type types typical unit update upgrade
    upgraded usd useful user users uses value vary vendor version wait wants warranty watch week weekend weeks wider
    width wife wish wonder wonderful word work worked working works world worry worth wrong yard yards year years
    yesterday youtube
    """.split()
)

# Verbs and measures as often as things: no attribute alone, but part of a pair ("music stand", "battery life").
HEADS = frozenset(
    """
    case drop grip handle hang level life low mount open pack plug room set setting shade slip spot stand step stick
    stock style top wear
    """.split()
)

# Nouns that name nothing of a thing. They are not stop words: a game may well have a story.
ABSTRACT_NOUNS = frozenset(
    """
    ability account addition address advice age alternative anchor answer anymore anywhere appearance art aspect
    attempt attention audience bang bear begin beginning bet bill blast boy bundle business call cat category center
    character claim comment companie compromise concept concern conclusion considerably consideration contact date
    dealer decade decision degree depend description detail difficulty dimension direction dog downside dozen draw
    drawback duet entry environment event everyday exception excess exchange excuse expectation experiment expert
    eye face factor family fashion feature feeling field fix force forum fraction function future game gem god gripe
    habit hassle heck hide hint hype iii image impression increase industry info information instance instant
    instruction interfere investment joke junk knowledge lack latest latter letter list load location longer loss
    man manner manufacturer mark marketing mass match medium method middle mind minimum minus morning mother name
    net newbie night non novice occasion occur odd offered offering owner page past penny period photo pic picture
    portion possibilitie possibility post potential preference present pricing prior process project purpose quarter
    rate rating reality recommendation regard regardless register release reputation requirement research rest ride
    risk route row rule sat search secret section selection self semi sense separately serie session share ship shot
    show sideway sign site situation skill slow solution sooner source spare state story suggestion surprise talk
    task taste tendency term theory third thousand ton tour trade tri trick trip variety vice view walk warning
    website weigh weird whatsoever whenever whim winter writing
    """.split()
)

_JUDGING = 1.5  # on VADER's scale from -4 to 4; milder words ("warm", "clean") often describe


@cache
def stop_words() -> frozenset[str]:
    """Function words, review words and words that judge, in lower case.

    >>> sorted({"the", "purchased", "terrible", "lavender"} & stop_words())
    ['purchased', 'terrible', 'the']
    """
    lexicon = SentimentIntensityAnalyzer().lexicon
    return FUNCTION_WORDS | REVIEW_WORDS | {word for word, valence in lexicon.items() if abs(valence) >= _JUDGING}
