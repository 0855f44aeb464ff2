"""The grammatical form of an attribute, which decides how a sentence can take it.

"Something with a glass jar", "something gluten-free", "something that is easy to clean": without a tagger, the form is
read off the last word (its ending, or a list of common words), and off phrases such as "easy to". What neither knows
is taken for a noun without an article, which reads well enough for any other form.
"""

from __future__ import annotations

import polars as pl

__all__ = [
    "FORMS",
    "MASS_NOUNS",
    "NOUN_FORMS",
    "grammatical_forms",
    "in_plural",
    "is_plural",
    "relative_clauses",
    "with_article",
]

FORMS = ("mass", "count", "adjective", "clause", "kind", "kinds")
"""Nouns without an article ("organic cotton", "zombies"), nouns with one ("glass jar"), adjectives ("gluten-free"),
what follows "is" alone ("easy to clean"), what a thing is ("card game"), and the same in the plural ("strings")."""

NOUN_FORMS = ("mass", "count", "kind", "kinds")

MASS_NOUNS = frozenset(
    """
    ink toner paper cardboard leather plastic wood bamboo steel metal brass chrome cotton glass foam rubber nylon water
    humidity hardware software action sustain feedback thickness light cardstock usa gold silver
    """.split()
)
"""Nouns that take no article although people write them in the plural too."""

_KINDS = frozenset(
    """
    game rpg jrpg crpg arpg fps mmo mmorpg moba rts shooter platformer puzzle-platformer simulator sim novel
    crawler builder scroller roguelike rogue-like roguelite rogue-lite metroidvania action-adventure
    """.split()
)
_COUNT = frozenset(
    """
    atmosphere bag band bar base basket belt bite blend bottle bowl box brew bucket burn button buckle cable cap
    capsule case challenge character clasp clip closure coating collar collection colour color cord cover cup
    cushion design dial dish display edge editor effect element ending engine feature feel filter finish fit flame
    flavour flavor form formula frame glow grip handle head heel hinge hole holder hood hook jar journal kit knit
    knob label lamp latch leaf lens lid light lining lock logo look loop map mechanism menu mode mood motor mount
    neck nozzle panel pattern pedal picture planter plate plot pocket port pot pouch print protagonist protocol
    pump recipe rim ring room scent screen seal seat setting shade shape sleeve smell sole soundtrack spine spout
    spray stand stem stitch story strap style surface switch system tablet tail taste texture theme throw timer
    tin tip tone top trim tube twist universe vibe view voice weave wheel wick window wipe world zip zipper
    binding wrapper build book binder nib bench
    """.split()
)
_ADJECTIVES = frozenset(
    """
    abstract absurd accurate acoustic affordable airy analog antique authentic beautiful big bitter black bland
    blue bold bright brief broad brown bulky bushy calm casual cheap cheerful chewy chilly chunky classic clean
    clear clever clunky co-op cold comfortable comfy compact complex cool cosy cozy creamy creepy crisp crispy
    crumbly crunchy cute cyberpunk dark decaf deep delicate dense different difficult digital dirty downtempo dry
    dual durable dusty dystopian earthy easy eerie electric elegant emotional epic exotic experimental external
    extra-strong fancy fast feathery female fine firm first-person fizzy flaky flat fleshy flimsy floral fluffy
    formal free fresh fruity full fun funny furry gentle glossy golden gory gothic grainy gray greasy green grey
    gritty grim handy handmade hard harsh heavy herbal high hilarious historical homemade honest hot huge humid
    indie intense internal intuitive isometric ivory juicy kosher halal large late layered leafy lengthy light
    lightweight linear little local lo-fi long loud low lush magical male mature medieval medium mellow messy
    metallic mild mini minimal minimalist minty modern moist moody muddy multi-player multiplayer musical narrow
    natural neat neutral new noisy nostalgic nutty oily old online open orange organic original oval pale peaceful
    pink plain plastic playful pocket-size polite portable post-apocalyptic powerful premium pretty private
    professional psychedelic pure purple pvp pve quick quiet quirky rare raw real-time red refined reliable remote
    retro rich ripe roomy rough round royal rustic sad salty scary sci-fi sharp shiny short silent silky silver
    silvery simple single-player singleplayer slick slim slippery slow small smart smoky smooth snug soft solid
    sour spacious sparse spicy split-screen square stable steady steep stiff sticky straight strange stretchy
    strict strong sturdy subtle super surreal sweet tactical tall tangy tart tasty tender thick thin third-person
    tight tiny top-down touch-friendly tough traditional transparent trendy tropical ultra unique unusual upbeat
    upright upscale urban vague vegan vegetarian velvety versatile vertical vintage violent vivid warm waterproof
    weird wet white whimsical wide wild wireless woody wooden woollen yellow zesty relaxing refreshing calming
    soothing moisturizing moisturising hydrating exfoliating challenging interesting charming amusing inspiring
    haunting gripping engaging long-lasting hard-wearing long-wearing hard-boiled cartoony assorted beige burgundy
    cyan magenta maroon military multicolor multicolored naval navy noir tan teal turquoise underwater western
    """.split()
)
# Phrases that describe, whatever their last word is.
_DESCRIBING = (
    "point & click",
    "point-and-click",
    "first person",
    "third person",
    "open world",
    "free range",
    "old school",
    "family friendly",
    "heavy duty",
    "self adhesive",
)
_NO_ADJECTIVES = frozenset(
    """
    bed bible cable comic critic detective dish drive fabric fable feed fish five finish garlic hive led live
    overdrive vive logic magic mechanic mic motive music narrative need olive perspective picnic polish radish red
    relish seed shed speed sled spinach table tonic topic traffic varnish vegetable weed wish adhesive archive
    alternative
    """.split()
)
_LIKE_ADJECTIVES = (
    r"(?:[^aeiou]able|ible|less|[a-z]ful|ous|ive|ical|istic|etic|matic|antic|phonic|spheric|sodic|esque|[a-z]ish|[^e]ed)$"
    r"|-(?:free|based|proof|safe|friendly|rich|like|size|sized|wide|resistant|paced|style|tolerant|purifying|watering)$"
    r"| (?:free|rich|friendly|safe)$"
)
_CLAUSES = (
    r"^(?:easy|hard|quick|simple|ready|safe|nice|good|great|suitable|perfect|free|full|made|designed|based|rich|low|"
    r"high|set|fit|ideal|built|inspired|meant|intended|compatible|available) (?:to|for|of|by|from|in|on|with|as) "
)
# Third persons that open a phrase of two words or more, and what many things do.
_VERBS = {
    f"{verb}{end}": verb
    for verbs, end in (
        (
            """
            break burn charge come contain cover crack fade fall feel fit fold hold include keep last leak leave look
            make melt need open play require run rust shed shrink slip smell sound squeak stain stay stick support
            take taste tear turn use wear work write
            """,
            "s",
        ),
        ("wash scratch stretch", "es"),
        ("can can't cannot will won't", ""),
    )
    for verb in verbs.split()
} | {"dries": "dry", "does": "do", "doesn't": "don't", "has": "have", "is": "are", "isn't": "aren't"}
_PLURAL = r"[^sui]s$|(?:ies|xes|ches|shes)$"


def grammatical_forms(phrases: pl.Series, kinds: pl.Series | None = None) -> pl.Series:
    """The form of each attribute, one of `FORMS`.

    Args:
        phrases: attributes in lower case.
        kinds: whether each says what a thing is, where that is known.

    >>> phrases = pl.Series(["glass jar", "gluten-free", "zombies", "easy to clean", "visual novel"])
    >>> grammatical_forms(phrases).to_list()
    ['count', 'adjective', 'mass', 'clause', 'kind']
    """
    text, last = pl.col("text"), pl.col("text").str.extract(r"(\S+)$").fill_null("")
    known = pl.lit(False) if kinds is None else pl.lit(kinds)
    plural = last.str.contains(_PLURAL)
    adjective = last.is_in(list(_ADJECTIVES)) | text.is_in(list(_DESCRIBING)) | text.str.contains(_LIKE_ADJECTIVES)
    form = (
        pl.when(known & plural)
        .then(pl.lit("kinds"))
        .when(text.str.contains(_CLAUSES))
        .then(pl.lit("clause"))
        .when(known | last.is_in(list(_KINDS)))
        .then(pl.lit("kind"))
        .when(adjective & ~last.is_in(list(_NO_ADJECTIVES - _ADJECTIVES)))
        .then(pl.lit("adjective"))
        .when(last.is_in(list(_COUNT)))
        .then(pl.lit("count"))
        .otherwise(pl.lit("mass"))
    )
    return phrases.rename("text").to_frame().select(form=form)["form"]


def relative_clauses(phrases: pl.Series, forms: pl.Series) -> pl.Series:
    """What many things do or are, for "products that ..."; null for phrases that are neither verbs nor clauses.

    Args:
        phrases: attributes in lower case.
        forms: the form of each.

    >>> phrases = pl.Series(["easy to clean", "breaks easily", "glass jar"])
    >>> relative_clauses(phrases, grammatical_forms(phrases)).to_list()
    ['are easy to clean', 'break easily', None]
    """
    frame = pl.DataFrame({"text": phrases, "form": forms})
    parts = pl.col("text").str.extract_groups(r"^(\S+) (\S.*)$").struct
    verb = parts.field("1").replace_strict(_VERBS, default=None, return_dtype=pl.String)
    does = pl.concat_str(verb, parts.field("2"), separator=" ")
    clause = pl.when(pl.col("form") == "clause").then(pl.concat_str(pl.lit("are "), "text"))
    return frame.select(clause=pl.coalesce(clause, does))["clause"]


def is_plural(nouns: pl.Expr) -> pl.Expr:
    """Whether the last word looks like a plural."""
    return nouns.str.extract(r"(\S+)$").str.contains(_PLURAL).fill_null(False)


def in_plural(nouns: pl.Expr) -> pl.Expr:
    """Regular nouns in the plural; a word that ends with one s is taken for one already.

    >>> pl.select(in_plural(pl.Series(["strap", "brush", "shelf", "battery", "strings"]))).to_series().to_list()
    ['straps', 'brushes', 'shelves', 'batteries', 'strings']
    """
    return (
        nouns.str.replace(r"([^aeiou])y$", "${1}ies$")
        .str.replace(r"(shel|lea|kni|wol|hal|scar)fe?$", "${1}ves$")
        .str.replace(r"(ss|x|z|ch|sh)$", "${1}es$")
        .str.replace(r"([^s$])$", "${1}s")
        .str.replace(r"\$$", "")
    )


def with_article(words: pl.Expr) -> pl.Expr:
    """Nouns after "a" or "an".

    >>> pl.select(with_article(pl.Series(["glass jar", "airtight lid", "rpg", "usb port"]))).to_series().to_list()
    ['a glass jar', 'an airtight lid', 'an rpg', 'a usb port']
    """
    vowel = words.str.contains("^[aeiou]") & ~words.str.contains("^(?:eu|one|uk|uni|us)")
    # Letters whose names begin with a vowel: "an RPG".
    spelled = words.str.contains(r"^[fhlmnrsx][^aeiouy\s-]*(?:[\s-]|$)|^mm")
    return pl.concat_str(pl.when(vowel | spelled).then(pl.lit("an ")).otherwise(pl.lit("a ")), words)
