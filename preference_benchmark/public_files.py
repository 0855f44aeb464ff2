"""Where the public data sets are, what their files are called, and on which terms they are given.

One table, `PUBLIC_FILES`, by the name of the benchmark's config. `download.fetch` reads it; so does every error that
says which file is missing. A size or a checksum stands here only where it has been published; `download` says
what happens where it has not.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PUBLIC_FILES", "PublicDataset", "PublicFile"]

_AMAZON_2014 = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"
_YELP = "https://business.yelp.com/data/resources/open-dataset/"
_AMAZON_NOTICE = (
    "Reviews and product data collected from Amazon and published for research by J. McAuley's group (UC San Diego). "
    "The release names no licence; the reviews belong to their authors. Cite He and McAuley (WWW 2016) and McAuley et "
    "al. (SIGIR 2015)."
)
_STEAM_NOTICE = (
    "Reviews and game data collected from Steam and published for research by J. McAuley's group (UC San Diego). "
    "The release names no licence; the reviews belong to their authors, and account names in it identify people. "
    "Cite Kang and McAuley (ICDM 2018), Wan and McAuley (RecSys 2018) and Pathak et al. (SIGIR 2017)."
)
_YELP_NOTICE = (
    "The Yelp Open Dataset is given under Yelp's Dataset User Agreement, which everyone has to accept in person: "
    "academic and personal use only, and no passing on of the data or of parts of it. A benchmark built from it holds "
    "review text and must not be published."
)
_MOVIELENS_NOTICE = (
    "MovieLens ratings are published by GroupLens (University of Minnesota) for research. No commercial use without "
    "permission, no claim of endorsement; the 1M release may not be redistributed without separate permission, and "
    "neither may a benchmark built from it. Cite Harper and Konstan (ACM TiiS 5(4), 2016)."
)


@dataclass(frozen=True)
class PublicFile:
    """One file of a data set.

    Attributes:
        name: what it is called in the folder; the sources look for this name.
        url: where it is, or, where the data set has to be fetched by hand, the page that leads to it.
        size: bytes, or None where no size has been published.
        sha256: the published checksum, or None: the first download is then trusted and later ones must equal it.
        optional: whether the data set can be read without it.
        instead: names of other files, such as the archive it is given in, that serve as well.
    """

    name: str
    url: str
    size: int | None = None
    sha256: str | None = None
    optional: bool = False
    instead: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublicDataset:
    """The files of one data set and the terms they come with.

    Attributes:
        source: the name in `sources.SOURCES` that reads them.
        files: what to fetch.
        notice: the terms, in our words.
        homepage: where the publishers describe the data.
        manual: whether the terms must be accepted in person, so that nothing is downloaded.
    """

    source: str
    files: tuple[PublicFile, ...]
    notice: str
    homepage: str
    manual: bool = False


def _amazon2014(category: str) -> PublicDataset:
    # Without metadata, items are described by their reviewers. The paper's items have metadata, so it is required.
    names = (f"reviews_{category}_5.json.gz", f"meta_{category}.json.gz")
    return PublicDataset(
        source="amazon2014",
        files=tuple(PublicFile(name, _AMAZON_2014 + name) for name in names),
        notice=_AMAZON_NOTICE,
        homepage="https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
    )


PUBLIC_FILES: dict[str, PublicDataset] = {
    "beauty": _amazon2014("Beauty"),
    "sports": _amazon2014("Sports_and_Outdoors"),
    "toys": _amazon2014("Toys_and_Games"),
    "steam": PublicDataset(
        source="steam",
        files=(
            PublicFile(
                "australian_user_reviews.json.gz",
                "https://mcauleylab.ucsd.edu/public_datasets/data/steam/australian_user_reviews.json.gz",
                sha256="a934bf74d8579bb25bc7bf24e652a87e2ccc91064e429a4cb4af5809178687a8",
            ),
            PublicFile("steam_games.json.gz", "https://cseweb.ucsd.edu/~wckang/steam_games.json.gz"),
        ),
        notice=_STEAM_NOTICE,
        homepage="https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
    ),
    "yelp": PublicDataset(
        source="yelp",
        files=tuple(
            PublicFile(f"yelp_academic_dataset_{part}.json", _YELP, instead=("yelp_dataset.tar",))
            for part in ("review", "business")
        ),
        notice=_YELP_NOTICE,
        homepage=_YELP,
        manual=True,
    ),
    "movielens": PublicDataset(
        source="movielens",
        files=(
            PublicFile(
                "ml-1m.zip",
                "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
                size=5_917_549,
                sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
            ),
        ),
        notice=_MOVIELENS_NOTICE,
        homepage="https://grouplens.org/datasets/movielens/1m/",
    ),
}
