"""Words as the extractive approximator compares them, and the words it never uses.

Function words carry no taste; what a thing cost and how it was delivered is no taste either, and the paper's
preferences leave it out (Paischer et al. 2025, arXiv:2412.08604).
"""

from __future__ import annotations

from functools import lru_cache

import polars as pl
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

__all__ = ["clauses", "no_aspects", "plain"]

_FUNCTION_WORDS = frozenset(
    """
    a about above across actually after again against ago all almost alone along already also although always am
    among an and another any anybody anyone anything anyway apart are around as aside at away back be became because
    become been before behind being below beside best better between beyond bit both but by came can cannot come
    completely could definitely did do does doing done down due during each easily either else end enough especially
    etc even ever every everybody everyone everything exactly except extremely fact fairly far feel few find fine
    first five for former found four from full further gave get getting give given go goes going gone got great had
    half happen hard hardly has have having he her here hers herself him himself his how however i if in indeed
    instead into is it its itself just keep kept kind knew know last least less let like likely little long look
    looked looking lot made main make making many matter may maybe me mean might mine minute month more most mostly
    much must my myself near nearly need never new next nice no nobody none nor not nothing now of off often old on
    once one only onto or other others otherwise our ours out over overall own particularly people perhaps place
    plenty point pretty put quite rather read real really reason right said same saw say second see seem seen set
    several shall she should side simply since six small so some somebody someone something sometimes soon sort start
    still stuff such sure take taken taking tell ten than that the their them themselves then there therefore these
    they thing think this those though thought three through thus time to together told too took total toward tried
    truly try trying turn twice two under unless until up upon us use used useful user using usually various very via
    want wanted was way we week well went were what whatever when where whether which while who whole whom whose why
    will with within without wonder wont word work worked working would year yes yet you your yours yourself
    add allow appear ask behave believe bring build built carry compare consider drop expect fall feel follow forget
    grab grip handle happen hang hear heard help include involve notice offer own perform place prove provide reach
    recognize remain remember remove replace require sit slip solve stand stay stick suggest supply suppose tend turn
    wear actual actually average basic bit bunch complete entire extra figure final general main major mention minor
    obvious original personal possible previous proper regular similar simple single specific standard total typical
    beginner brainer bonus care case chance choice comparison complaint difference doubt effort example experience
    fan gift hand hope hour idea inch issue job kid level life living lot mine minute month mount number opinion
    option ounce oz ounces pack package part percent person piece plan pros cons problem quality question result
    review reviewer room setting shade size spot stock style thank theses top trouble type unit update version
    world year beat break broke guess incredible kinda market open plug spend step supposed upgrade upgraded youtube
    day guy kid son daughter wife husband friend dad mom brother sister hour today yesterday couple bunch
    big good bad ok okay huge tiny short large high low different able available nothing'
    don't doesn't didn't isn't wasn't won't can't couldn't wouldn't shouldn't haven't hasn't aren't weren't i'm i've
    i'd i'll it's that's they're you're he's she's there's what's let's we've we're dont doesnt didnt im ive cant
    """.split()
)

_COMMERCE_WORDS = frozenset(
    """
    amazon arrival arrive arrived bargain bought brand buck budget buy buyer buying cash cent charge cheap cheaper
    company cost credit customer deal deliver delivered delivery discount dollar expensive free item listing mail
    money order ordered ordering package packaging paid pay price priced pricey product purchase purchased purchasing
    receive received recommend refund replacement return returned sale seller sell sent service shipment shipped
    shipping shop star store supplier value vendor warranty worth
    """.split()
)

# On VADER's scale from -4 to 4; milder words ("warm", "clean") often describe.
_JUDGING = 1.5
_NOT_A_WORD = r"[^\p{L}\p{N}']+"
_POSSESSIVE = r"'s\b|\B'|'\B"
# A plural s; words such as glass, bonus and basis keep theirs.
_PLURAL = r"\b(\w{2,}[^\Wsui])s\b"
_CLAUSE_END = r"(?i)[.!?;:\n]+|,?\s\b(?:but|however|although|though|except that|whereas|while)\b|,\s+(?:and|so|yet)\b"


def plain(text: pl.Expr) -> pl.Expr:
    """Text in plain form: lower-case words without plural s, two blanks between, one at either end.

    >>> pl.select(plain(pl.lit("Oil-free Creams!"))).item()
    ' oil  free  cream '
    """
    words = text.str.to_lowercase().str.replace_all(_POSSESSIVE, "").str.replace_all(_NOT_A_WORD, " ")
    words = words.str.strip_chars().str.replace_all(_PLURAL, "${1}").str.replace_all(" ", "  ")
    return pl.concat_str([pl.lit(" "), words, pl.lit(" ")])


def clauses(text: pl.Expr) -> pl.Expr:
    """Text cut into clauses: at the ends of sentences and where a turn such as "but" begins.

    >>> pl.select(clauses(pl.lit("Lovely scent, but the jar leaks. Sad!"))).item().to_list()
    ['Lovely scent', ' the jar leaks', ' Sad', '']
    """
    return text.str.replace_all(_CLAUSE_END, "\n").str.split("\n")


@lru_cache(maxsize=1)
def no_aspects() -> pl.Series:
    """Single words, in plain form, that are no aspect: function, trade and vague words, and words that judge.

    >>> no_aspects().is_in([" cheap ", " lavender ", " terrible "]).sum()
    2
    """
    judging = [word for word, valence in SentimentIntensityAnalyzer().lexicon.items() if abs(valence) >= _JUDGING]
    words = pl.DataFrame({"word": sorted({*_FUNCTION_WORDS, *_COMMERCE_WORDS, *judging})})
    return words.select(form=plain(pl.col("word")))["form"].unique().sort()
