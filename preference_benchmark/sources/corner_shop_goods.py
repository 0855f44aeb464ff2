"""What the corner shop sells: departments, kinds of goods and the typed attributes that tell them apart.

Facets are shared between departments (a scent belongs to soap, candles and washing powder alike), so that a
taste learned from one shelf says something about another. Every attribute is a singular noun phrase that
reads well after "the" and after "with". All names are made up for this data set.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BRANDS", "DEPARTMENTS", "FACETS", "Department", "Facet"]


@dataclass(frozen=True)
class Facet:
    """One typed attribute and the values it takes.

    Attributes:
        aspects: the values, in lower case: "lavender scent", "glass jar".
        quality: whether a value also stands before a noun without its last word ("lavender soap").
    """

    aspects: tuple[str, ...]
    quality: bool = False

    @property
    def before_noun(self) -> list[str]:
        """The values as they stand before the name of the goods."""
        return [aspect.rpartition(" ")[0] if self.quality else aspect for aspect in self.aspects]


@dataclass(frozen=True)
class Department:
    """One shelf of the shop.

    Attributes:
        kinds: kinds of goods. Having bought one, people tend to come back for the next in the list.
        facets: names of four facets; the first two stand before the kind in a title, the others after "with".
        price: median price.
        sizes: sizes on offer.
    """

    kinds: tuple[str, ...]
    facets: tuple[str, str, str, str]
    price: float
    sizes: tuple[str, ...]


def _values(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


FACETS: dict[str, Facet] = {
    "binding": Facet(
        _values(
            "hardback cover, linen cover, leather cover, softback cover, spiral binding, lay-flat "
            "binding, elastic closure, magnetic clasp"
        ),
    ),
    "bite": Facet(
        _values("crunchy bite, chewy bite, crispy bite, soft bite, flaky bite, crumbly bite, airy bite, sticky bite"),
        quality=True,
    ),
    "brew": Facet(
        _values(
            "mellow brew, bold brew, decaf brew, smoky brew, light brew, malty brew, floral brew, extra-strong brew"
        ),
        quality=True,
    ),
    "build": Facet(
        _values(
            "wooden build, felt build, magnetic build, cardboard build, pocket-size box, "
            "glow-in-the-dark print, hand-drawn artwork, sturdy case"
        ),
    ),
    "burn": Facet(
        _values(
            "long burn, crackling wick, smokeless burn, slow release, strong scent throw, flickering "
            "glow, double wick, cotton wick"
        ),
    ),
    "care": Facet(
        _values(
            "low-water care, pet-safe nature, air-purifying effect, fast rooting, shade tolerance, long "
            "flowering, frost hardiness, humid-room tolerance"
        ),
    ),
    "colour": Facet(
        _values(
            "forest green colour, navy blue colour, mustard yellow colour, blush pink colour, charcoal "
            "grey colour, ivory colour, burnt orange colour, burgundy colour"
        ),
        quality=True,
    ),
    "diet": Facet(
        _values(
            "vegan recipe, gluten-free recipe, sugar-free recipe, nut-free recipe, low-salt recipe, "
            "dairy-free recipe, high-protein recipe, wholegrain recipe"
        ),
        quality=True,
    ),
    "fibre": Facet(
        _values(
            "merino wool, organic cotton, washed linen, brushed flannel, bamboo viscose, recycled "
            "fleece, cashmere blend, raw silk"
        ),
    ),
    "flavour": Facet(
        _values(
            "mint flavour, ginger flavour, dark chocolate flavour, caramel flavour, orange flavour, "
            "cinnamon flavour, honey flavour, raspberry flavour, hazelnut flavour, lemon flavour, "
            "chilli flavour, cardamom flavour"
        ),
        quality=True,
    ),
    "form": Facet(
        _values(
            "concentrated liquid, dissolving tablet, foaming spray, fine powder, soft wipe, solid bar, "
            "scrubbing paste, pre-measured capsule"
        ),
    ),
    "formula": Facet(
        _values(
            "vegan formula, alcohol-free formula, oil-free formula, organic formula, hypoallergenic "
            "formula, paraben-free formula, plant-based formula, gentle formula"
        ),
        quality=True,
    ),
    "habit": Facet(
        _values(
            "trailing growth, climbing growth, upright growth, bushy growth, compact growth, creeping "
            "growth, arching growth, slow growth"
        ),
        quality=True,
    ),
    "leaf": Facet(
        _values(
            "variegated leaf, glossy leaf, feathery leaf, heart-shaped leaf, silvery leaf, purple leaf, "
            "fleshy leaf, velvety leaf"
        ),
        quality=True,
    ),
    "material": Facet(
        _values(
            "oak wood, stoneware clay, enamelled steel, cast iron, borosilicate glass, bamboo fibre, "
            "hammered copper, fine porcelain"
        ),
    ),
    "packaging": Facet(
        _values(
            "glass jar, refillable pouch, recycled tin, paper wrapper, pump bottle, travel tube, "
            "cardboard box, cotton bag"
        ),
    ),
    "paper": Facet(
        _values(
            "dotted paper, lined paper, blank paper, squared paper, recycled paper, handmade paper, "
            "heavyweight paper, perforated paper"
        ),
        quality=True,
    ),
    "pattern": Facet(
        _values(
            "floral pattern, striped pattern, polka-dot pattern, geometric pattern, checked pattern, "
            "botanical pattern, starry pattern, paisley pattern"
        ),
        quality=True,
    ),
    "play": Facet(
        _values(
            "two-player mode, solo mode, cooperative play, quick play, strategic depth, party mood, "
            "memory challenge, storytelling element"
        ),
    ),
    "pot": Facet(
        _values(
            "terracotta pot, woven basket, self-watering pot, hanging planter, ceramic pot, concrete "
            "pot, zinc bucket, coir pot"
        ),
    ),
    "practical": Facet(
        _values(
            "dishwasher-safe coating, non-stick surface, stackable shape, heatproof handle, airtight "
            "lid, pouring spout, engraved rim, hanging loop"
        ),
    ),
    "scent": Facet(
        _values(
            "lavender scent, rose scent, citrus scent, vanilla scent, sandalwood scent, eucalyptus "
            "scent, jasmine scent, cedarwood scent, sea-salt scent, patchouli scent, fragrance-free "
            "formula"
        ),
        quality=True,
    ),
    "sourcing": Facet(
        _values(
            "fair-trade sourcing, organic sourcing, single-origin sourcing, small-batch sourcing, "
            "high-altitude sourcing, family-farm sourcing, wild sourcing, rainforest sourcing"
        ),
        quality=True,
    ),
    "texture": Facet(
        _values(
            "creamy texture, silky texture, lightweight texture, rich texture, gel-like texture, "
            "whipped texture, grainy texture, buttery texture"
        ),
        quality=True,
    ),
    "theme": Facet(
        _values(
            "space theme, ocean theme, jungle theme, railway theme, castle theme, detective theme, farm "
            "theme, fairy-tale theme"
        ),
        quality=True,
    ),
    "vessel": Facet(
        _values(
            "amber glass, ceramic pot, frosted glass, marble dish, brass holder, concrete pot, wooden lid, recycled tin"
        ),
    ),
    "wax": Facet(
        _values("soy wax, beeswax, coconut wax, rapeseed wax, olive wax, rice wax, gel wax, layered wax"),
    ),
    "weave": Facet(
        _values(
            "chunky knit, waffle weave, cable knit, fringed edge, quilted stitch, herringbone weave, "
            "ribbed knit, embroidered trim"
        ),
    ),
}

DEPARTMENTS: dict[str, Department] = {
    "skin care": Department(
        _values("cleanser, face toner, face cream, lip balm, hand cream, body lotion, body scrub, bath oil, face mask"),
        ("texture", "scent", "formula", "packaging"),
        11.0,
        ("50 ml", "100 ml", "200 ml"),
    ),
    "tea and coffee": Department(
        _values(
            "black tea, green tea, herbal infusion, ground coffee, espresso blend, hot chocolate, chai mix, iced tea"
        ),
        ("brew", "flavour", "sourcing", "packaging"),
        7.0,
        ("100 g", "250 g", "500 g"),
    ),
    "snacks": Department(
        _values("biscuit, trail mix, chocolate bar, cracker, popcorn, granola, fruit slice, oat cake, nougat"),
        ("bite", "flavour", "diet", "packaging"),
        4.0,
        ("40 g", "120 g", "300 g"),
    ),
    "stationery": Department(
        _values(
            "notebook, weekly planner, sketchbook, letter pad, address book, travel journal, recipe book, photo album"
        ),
        ("colour", "paper", "binding", "pattern"),
        12.0,
        ("A6", "A5", "A4"),
    ),
    "house plants": Department(
        _values("fern, succulent, ivy, palm, fig tree, philodendron, begonia, peperomia"),
        ("leaf", "habit", "care", "pot"),
        16.0,
        ("small", "medium", "large"),
    ),
    "kitchen": Department(
        _values("mug, teapot, milk jug, mixing bowl, chopping board, storage jar, baking dish, serving tray, saucepan"),
        ("colour", "material", "practical", "pattern"),
        22.0,
        ("small", "medium", "large"),
    ),
    "candles": Department(
        _values(
            "pillar candle, jar candle, tea light, wax melt, taper candle, votive candle, floating candle, "
            "garden candle"
        ),
        ("scent", "wax", "burn", "vessel"),
        14.0,
        ("90 g", "180 g", "400 g"),
    ),
    "textiles": Department(
        _values("throw, cushion, scarf, blanket, tea towel, apron, table runner, bedspread"),
        ("colour", "fibre", "weave", "pattern"),
        28.0,
        ("small", "medium", "large"),
    ),
    "cleaning": Department(
        _values(
            "dish soap, laundry detergent, fabric softener, floor cleaner, window cleaner, oven cleaner, "
            "bathroom cleaner, stain remover"
        ),
        ("scent", "formula", "form", "packaging"),
        6.0,
        ("250 ml", "500 ml", "1 l"),
    ),
    "games": Department(
        _values("card game, board game, jigsaw, dice game, building set, puzzle book, domino set, trivia game"),
        ("colour", "theme", "play", "build"),
        18.0,
        ("mini", "standard", "deluxe"),
    ),
}

BRANDS: tuple[str, ...] = tuple(
    f"{first} {second}"
    for first in _values("Alder, Bramley, Copper, Dovetail, Elder, Fennel, Hearth, Juniper, Kestrel, Larch")
    for second in _values("Lane, & Daughters, Works, Supply, House")
)
