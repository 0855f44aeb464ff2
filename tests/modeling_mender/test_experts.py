"""Experts score items as their definitions say, whatever the padding and the other requests of a batch."""

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import tries

from modeling_mender.configuration_mender import KINDS, ExpertSumConfig
from modeling_mender.experts import ExpertSum
from modeling_mender.item_evidence import added_up
from modeling_mender.language_experts import UNKNOWN_WORD, Lexical, Role, keys_of, keys_of_texts
from modeling_mender.modeling_experts import ExpertsConfig, ExpertsRecommender
from modeling_mender.purchase_experts import ItemItem, Popularity
from modeling_mender.training.closed_form import bm25_index, fill_lexical
from modeling_mender.training.reading import scores_of_items

ITEMS = 12


def recommender(**weights: dict[str, float]) -> ExpertsRecommender:
    generator = torch.Generator().manual_seed(0)
    names = ["popularity", "co_purchase", "transitions"]
    model = ExpertsRecommender(ExpertsConfig(ITEMS, names, num_neighbours=5, weights=weights)).eval()
    model.experts.popularity.counts.copy_(torch.randint(0, 9, (ITEMS,), generator=generator))
    model.experts.co_purchase.set_matrix(torch.randn(ITEMS, ITEMS, generator=generator))
    model.experts.transitions.set_matrix(torch.rand(ITEMS, ITEMS, generator=generator))
    return model


def inputs(histories: list[list[int]]) -> torch.Tensor:
    """As the processor writes `history="indices"`: a start token, item index + 1, 0 for padding."""
    longest = max(map(len, histories))
    rows = [[ITEMS + 1, *(item + 1 for item in history), *[0] * (longest - len(history))] for history in histories]
    return torch.tensor(rows)


@given(st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=6), min_size=1, max_size=4), st.integers(1, ITEMS))
@tries(40)
def test_item_item_adds_the_kept_entries_of_the_history(histories, kept):
    matrix = torch.randn(ITEMS, ITEMS, generator=torch.Generator().manual_seed(kept))
    expert = ItemItem(ITEMS, kept)
    expert.set_matrix(matrix)
    largest = torch.zeros_like(matrix).scatter(1, matrix.abs().topk(kept, dim=1).indices, 1.0) * matrix
    longest = max(1, *map(len, histories))
    history = torch.tensor([[*own, *[-1] * (longest - len(own))] for own in histories])
    expected = torch.stack([sum((largest[item] for item in own), torch.zeros(ITEMS)) for own in histories])
    torch.testing.assert_close(expert(history), expected)
    sparse = ItemItem(ITEMS, kept)
    sparse.set_matrix(matrix.to_sparse())
    assert sparse.neighbours.equal(expert.neighbours) and sparse.strengths.equal(expert.strengths)


def test_lexical_scores_are_bm25():
    texts = [[1, 2, 2, 3], [2, 4], [5, 5, 5, 1], [3]]
    index = bm25_index(texts, vocabulary=8)
    expert = Lexical(8, len(texts), len(index[1]))
    fill_lexical(expert, index)
    average = sum(map(len, texts)) / len(texts)

    def gain(token: int, text: list[int]) -> float:
        frequency, having = text.count(token), sum(token in other for other in texts)
        idf = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
        return idf * frequency / (frequency + 1.5 * (1 - 0.75 + 0.75 * len(text) / average))

    queries = torch.tensor([[2, 2, 5], [3, -1, -1], [7, -1, -1]])
    expected = [
        [sum(gain(token, text) for token in set(query) if token >= 0) for text in texts] for query in queries.tolist()
    ]
    torch.testing.assert_close(expert(queries), torch.tensor(expected))


def test_a_word_of_several_pieces_is_a_term_as_a_whole():
    pieces = ["[PAD]", "in", "fusion", "##fusion", "##s", "tea"]
    roles = torch.tensor([Role.OTHER, *[Role.BEGINS] * 2, Role.CONTINUES, Role.ENDING, Role.BEGINS], dtype=torch.uint8)
    texts = [["in", "##fusion", "##s"], ["tea", "in", "fusion"], ["in", "##s", "##fusion"], ["tea", "##s"]]

    def whole(text: list[str]) -> list[str]:
        """The terms of a text: of a word of several pieces, the word and the others, without the plural's ending."""
        found = []
        for word in re.findall(r"\S+(?: ##\S+)*", " ".join(text)):
            first, *others = re.sub(r" ##s$", "", word).split()
            found += [" ".join((first, *others)), *others]
        return found

    names = [*pieces, *sorted({term for text in texts for term in whole(text)} - {*pieces})]
    assert names[len(pieces) :] == ["in ##fusion", "in ##s ##fusion"]
    by_name = bm25_index([[names.index(term) for term in whole(text)] for text in texts[:3]], len(names))
    expected = Lexical(len(names), 3, len(by_name[1]))
    fill_lexical(expected, by_name)
    expected.put(torch.tensor([3, 1]), [[names.index(term) for term in whole(texts[row])] for row in (3, 1)])

    index = bm25_index([list(map(pieces.index, text)) for text in texts[:3]], len(pieces), roles)
    expert = Lexical(len(pieces), 3, len(index[1]), len(index[-1]))
    fill_lexical(expert, index, roles)
    expert.put(torch.tensor([3, 1]), [list(map(pieces.index, texts[row])) for row in (3, 1)])

    queries = [["in", "[PAD]", "[PAD]"], ["in", "##fusion", "[PAD]"], ["tea", "in", "##s"], ["tea", "[PAD]", "##s"]]
    queries.append(["in", "##fusion", "##s"])
    tokens = torch.tensor([list(map(pieces.index, query)) for query in queries])
    scores = expert(expert.terms(tokens.masked_fill(tokens == 0, -1)))
    written = [[piece for piece in query if piece != "[PAD]"] for query in queries]
    written[3] = ["tea"]  # no word comes before the ending
    words = [[names.index(term) for term in whole(query)] for query in written]
    words = torch.tensor([[*own, *[-1] * (3 - len(own))] for own in words])
    torch.testing.assert_close(scores, expected(words))
    assert [row.nonzero().flatten().tolist() for row in scores] == [[1], [0, 2], [1, 3], [1, 3], [0, 2]]
    assert expert.terms(torch.full((2, 3), -1)).eq(-1).all()
    assert expert.terms(tokens.int()).equal(expert.terms(tokens))


def test_of_a_word_that_no_item_has_the_first_piece_is_looked_up_unless_something_else_tells():
    pieces = ["[PAD]", "in", "rogue", "##like", "##s", "game", "coffee"]
    roles = [Role.OTHER, Role.SHORT, Role.BEGINS, Role.CONTINUES, Role.ENDING, Role.BEGINS, Role.BEGINS]
    roles = torch.tensor(roles, dtype=torch.uint8)
    texts = [["rogue"], ["in"], ["in", "##like"], ["coffee"], *[["game"]] * 6]
    index = bm25_index([list(map(pieces.index, text)) for text in texts], len(pieces), roles)
    expert = Lexical(len(pieces), 10, len(index[1]), len(index[-1]))
    fill_lexical(expert, index, roles)

    def found(*query: str) -> list[int]:
        tokens = torch.tensor([list(map(pieces.index, query))])
        return expert(expert.terms(tokens))[0].nonzero().flatten().tolist()

    assert found("rogue", "##like", "##s") == [0, 2]  # by "rogue", and by "##like"
    assert found("in", "##like", "##s") == [2] and found("in", "##like", "##like") == [2]
    assert found("rogue", "##like", "game") == [0, 2, *range(4, 10)]  # which most items have
    assert found("rogue", "##like", "coffee") == [2, 3]  # which one has
    expert.put(torch.tensor([1]), [[2, 3]])
    assert found("rogue", "##like", "##s") == [1, 2]  # an item with the whole word


def test_keys_of_words_differ():
    pieces = torch.cartesian_prod(torch.arange(0, 300), torch.arange(300, 600))
    roles = torch.where(torch.arange(600) < 300, Role.BEGINS, Role.CONTINUES).to(torch.uint8)
    keys = torch.tensor(keys_of_texts(pieces.tolist(), roles))
    assert keys[:, 1].equal(pieces[:, 1])
    assert bool((keys[:, 0] >= 600).all() and (keys[:, 0] < UNKNOWN_WORD).all())
    assert len(keys[:, 0].unique()) == len(pieces)


def test_key_of_a_very_long_word_of_a_large_vocabulary():
    roles = torch.full((300_000,), Role.CONTINUES, dtype=torch.uint8)
    roles[-1] = Role.BEGINS
    word = torch.full((500,), len(roles) - 2)
    word[0] += 1
    keys = keys_of(torch.stack([word, word.index_fill(0, torch.tensor(499), 7)]), roles)[:, 0]
    assert len(roles) < int(keys[1]) < int(keys[0]) < UNKNOWN_WORD


def test_words_of_added_texts_become_terms():
    """An index to which texts are added finds the same items as one that was made with them at once."""
    pieces = torch.arange(2, 12)
    roles = torch.tensor([Role.OTHER] * 2 + [Role.BEGINS] * 5 + [Role.CONTINUES] * 5, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    texts = [pieces[torch.randint(len(pieces), (6,), generator=generator)].tolist() for _ in range(12)]
    whole, first = (bm25_index(texts[:count], len(roles), roles) for count in (12, 5))
    made, grown = (
        Lexical(len(roles), count, len(index[1]), len(index[-1])) for count, index in ((12, whole), (5, first))
    )
    fill_lexical(made, whole, roles)
    fill_lexical(grown, first, roles)
    grown.put(torch.arange(8, 12), texts[8:])
    grown.put(torch.arange(5, 8), texts[5:8])
    assert len(grown.words) > len(first[-1]) and grown.words.equal(made.words)
    grown.check_values()
    tokens = torch.tensor(texts)
    assert grown.terms(tokens).equal(made.terms(tokens))
    assert grown(grown.terms(tokens)).bool().equal(made(made.terms(tokens)).bool())


def test_models_of_earlier_versions_look_up_pieces_as_words():
    config = ExpertSumConfig(3, ["lexical"], num_postings=2, text_vocabulary=6)
    experts = ExpertSum(config)
    assert not config.num_words and len(experts.lexical.starts) == 7
    assert "lexical.roles" not in experts.state_dict()
    assert experts.lexical.terms(torch.tensor([[1, 3, -1]])).tolist() == [[1, 3, -1]]
    assert "lexical.roles" in ExpertSum(ExpertSumConfig(3, ["lexical"], num_words=8)).state_dict()


@given(st.integers(0, 999), st.integers(0, 4))
@tries(30)
def test_posting_lists_say_of_some_items_what_they_say_of_all(seed, most):
    generator = torch.Generator().manual_seed(seed)
    texts = [
        torch.randint(8, (int(n),), generator=generator).tolist()
        for n in torch.randint(1, 7, (ITEMS,), generator=generator)
    ]
    index = bm25_index(texts, vocabulary=10)
    expert = Lexical(10, ITEMS, len(index[1]))
    fill_lexical(expert, index)
    expert.put(torch.arange(expert.num_items, expert.num_items + 2), [[1, 9], [3, 3, 3]])
    queries = torch.randint(-1, 10, (3, 5), generator=generator)
    weights = torch.rand(3, 5, generator=generator)
    every = expert(queries, weights)
    items = torch.randint(ITEMS + 2, (3, 20), generator=generator)
    torch.testing.assert_close(expert.at(items, queries, weights), every.gather(1, items))
    torch.testing.assert_close(expert.at(items, queries), expert(queries).gather(1, items))
    # Rare words by their postings, the others looked up: together they are all.
    listed, values, common = expert.rare(queries, weights, most)
    listed, values = added_up(listed, values, ITEMS + 2)
    assert bool((listed[:, 1:] >= listed[:, :-1]).all())
    total = torch.zeros(3, ITEMS + 3).scatter_add_(1, listed, values)[:, :-1]
    everything = torch.arange(ITEMS + 2).expand(3, -1)
    torch.testing.assert_close(total + expert.at(everything, common, weights), every)


def test_popularity_is_finite_for_items_that_were_never_bought():
    expert = Popularity(3)
    expert.counts.copy_(torch.tensor([4.0, 0.0, 1.0]))
    scores = expert(2)
    assert (
        scores.shape == (2, 3) and scores.isfinite().all() and scores[0].argsort(descending=True).tolist() == [0, 2, 1]
    )


def test_the_sum_is_weighted_by_the_kind_of_request():
    weights = {"silent": {"popularity": 0.0, "co_purchase": 2.0, "transitions": 0.5}, "inferred": {"transitions": 0.0}}
    model = recommender(**weights)
    batch = inputs([[3, 1], [3, 1]])
    parts = model.expert_scores(batch)
    kinds = torch.tensor([KINDS.index("silent"), KINDS.index("inferred")])
    scores = model.scores(batch, kinds)
    torch.testing.assert_close(scores[0], 2 * parts["co_purchase"][0] + 0.5 * parts["transitions"][0])
    torch.testing.assert_close(scores[1], parts["popularity"][1] + parts["co_purchase"][1])
    assert torch.equal(model.scores(batch), model.scores(batch, torch.tensor([2, 2])))  # no text: silent


def test_neither_padding_nor_batch_mates_change_a_request():
    model = recommender()
    histories = [[0], [5, 2, 7, 7], [], [11, 4]]
    together = model.scores(inputs(histories))
    for row, history in enumerate(histories):
        torch.testing.assert_close(model.scores(inputs([history]))[0], together[row])


def test_the_latest_items_of_a_history_say_most_about_what_is_bought_next():
    model = recommender(silent={"popularity": 0.0, "co_purchase": 0.0})
    scores = model.scores(inputs([[8, 9, 1, 2, 3]]))[0]
    matrix = torch.stack([model.experts.transitions(torch.tensor([[item]]))[0] for item in range(ITEMS)])
    torch.testing.assert_close(scores, matrix[3] + matrix[2] / 2 + matrix[1] / 3)


def test_saved_experts_recommend_the_same(tmp_path):
    model = recommender(stated={"popularity": 3.0})
    model.save_pretrained(tmp_path)
    loaded = ExpertsRecommender.from_pretrained(tmp_path)
    batch = inputs([[1, 2], [4]])
    assert torch.equal(loaded.recommend(batch, top_k=4).item_indices, model.recommend(batch, top_k=4).item_indices)


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"experts": []}, "empty"),
        ({"experts": ["magic"]}, "magic"),
        ({"experts": ["dense"]}, "encoder"),
        ({"weights": {"typed": {"popularity": 1}}}, "typed"),
        ({"weights": {"stated": {"dense": 1}}}, "dense"),
        ({"weights": {"stated": {"popularity": float("nan")}}}, "nan"),
        ({"weights": {"stated": {"popularity": "1"}}}, "'1'"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(settings, named):
    with pytest.raises(ValueError, match=named):
        ExpertsConfig(3, **{"experts": ["popularity"], **settings})


def test_conditions_of_a_request_are_added_with_their_weights():
    model = recommender()
    first, second = inputs([[1, 2], [4]]), inputs([[5], [6, 7]])
    both = torch.stack([first, second], dim=1)
    weights = torch.tensor([[2.0, -1.0], [0.5, 0.5]])
    expected = weights[:, :1] * model.scores(first) + weights[:, 1:] * model.scores(second)
    kind = torch.full((2, 2), KINDS.index("silent"))
    torch.testing.assert_close(model.scores(both, kind, condition_weights=weights), expected)


def test_several_conditions_count_alike_by_default():
    model = recommender(**{kind: {"popularity": 0.3, "co_purchase": 2.0, "transitions": 1.0} for kind in KINDS})
    first, second = inputs([[1, 2], [3, 0]]), inputs([[4, 5], [6, 7]])
    both = torch.stack([first, second], 1)
    expected = (model.scores(first) + model.scores(second)) / 2
    torch.testing.assert_close(model.scores(both), expected)
    torch.testing.assert_close(model.scores(both, condition_weights=torch.tensor([0.5, 0.5]).expand(2, -1)), expected)
    items = torch.tensor([[0, 3], [5, 11]])
    parts = model.contributions(items, both)
    torch.testing.assert_close(sum(parts.values()), expected.gather(1, items))
    with pytest.raises(ValueError, match=r"condition_weights has shape \(2, 1\)"):
        model.scores(both, condition_weights=torch.ones(2, 1))


def test_contributions_of_experts_add_up_to_differences_between_scores():
    model = recommender(silent={"popularity": 0.5, "transitions": 0.0})
    prior = torch.linspace(-1, 1, ITEMS)
    found = model.recommend(inputs([[1, 2], [4]]), top_k=5, prior=prior, exclude=[3], why=True)
    assert set(found.contributions) == {"popularity", "co_purchase", "transitions", "prior"}
    assert not found.contributions["transitions"].any()
    own = prior[found.item_indices]
    torch.testing.assert_close(found.contributions["prior"], own - own.mean(1, keepdim=True))
    total = sum(found.contributions.values())
    torch.testing.assert_close(total, found.scores - found.scores.mean(1, keepdim=True))


@given(
    st.lists(st.lists(st.integers(0, 7), max_size=5), min_size=1, max_size=4), st.sets(st.integers(0, 3), min_size=1)
)
@tries(40)
def test_scores_of_the_same_items_for_all_queries_are_those_of_the_whole_index(queries, some):
    texts = [[1, 2, 2, 3], [2, 4], [5, 5, 5, 1], [3]]
    index = bm25_index(texts, vocabulary=8)
    expert = Lexical(8, len(texts), len(index[1]))
    fill_lexical(expert, index)
    longest = max(1, *map(len, queries))
    tokens = torch.tensor([[*own, *[-1] * (longest - len(own))] for own in queries])
    weights = torch.rand(tokens.shape, requires_grad=True)
    items = torch.tensor([*some])
    found, expected = scores_of_items(expert, items, tokens, weights), expert(tokens, weights)[:, items]
    torch.testing.assert_close(found, expected)
    if expected.requires_grad and found.requires_grad:
        own = torch.autograd.grad(found.square().sum(), weights, allow_unused=True)[0]
        torch.testing.assert_close(own, torch.autograd.grad(expected.square().sum(), weights, allow_unused=True)[0])
