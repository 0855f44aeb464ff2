"""`recommend()` under what changes or wraps a model: it ranks as the changed model's own forward pass does, or refuses.

The plain forward pass is the second implementation. Doubles stand in for quantisation libraries, which are tested
beside them where they are installed.
"""

from __future__ import annotations

import copy
import importlib.util
import warnings

import accelerate
import peft
import pytest
import torch
import torch.nn.utils.parametrize
import torch.nn.utils.prune
from doubles import brute_force_scores, encoder_folder, random_catalogue, random_inputs, small_method, tiny_model
from torch import nn
from torch.nn import functional
from transformers import AutoModel

from modeling_mender import MenderConfig, MenderForGenerativeRetrieval
from modeling_mender.decoder import CalledDecoder

INPUTS = random_inputs(3, 6)


@pytest.fixture
def model():
    return tiny_model(random_catalogue(20, [4, 6]))


def check(model, tolerance=1e-4, inner=None):
    """All items of `recommend()` have the scores of the forward pass."""
    inner = model if inner is None else inner
    found = model.recommend(**INPUTS, top_k=20, num_beams="exact")
    expected = brute_force_scores(inner, INPUTS)
    torch.testing.assert_close(found.scores, expected.gather(1, found.item_indices), rtol=tolerance, atol=tolerance)
    return expected


def linears(model):
    return [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]


def replace(model, name, part):
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, part)


# Weights that are written to


def by_data(weight):
    weight.data *= 1.5


def in_inference_mode(weight):
    with torch.inference_mode():
        weight[0] += 0.3


def by_permutation(weight):
    weight.data.copy_(weight.data.roll(1, -1))


WRITES = [by_data, in_inference_mode, by_permutation]


def test_every_weight_that_is_written_to_counts(model):
    names = [name for name, _ in model.named_parameters() if name.startswith(("decoder.", "lm_head."))]
    for index, name in enumerate(names):
        before = check(model)
        WRITES[index % 3](model.get_parameter(name))
        after = check(model)
        assert "relative_attention_bias" in name or not torch.equal(before, after), name


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {"foreach": False}], ids=str)
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_optimizer_steps_count_in_any_mode(model, kind, options, training):
    model.config.decoder.dropout_rate = 0.0
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    model.train(training)
    optimizer = kind(model.parameters(), lr=0.05, **options)
    before = model.recommend(**INPUTS, num_beams="exact").scores
    model(**INPUTS, labels=model.item_tokens(torch.tensor([3, 7, 1]))).loss.backward()
    optimizer.step()
    found = model.recommend(**INPUTS, num_beams="exact", top_k=20)
    model.eval()
    assert not torch.equal(found.scores[:, :10], before)
    torch.testing.assert_close(found.scores, check(model).gather(1, found.item_indices), rtol=1e-4, atol=1e-4)


def test_a_model_that_nothing_writes_to_is_folded_once(model):
    model.recommend(**INPUTS)
    folded = model._folded[1]
    model.train().eval()
    model.recommend(**INPUTS)
    assert model._folded[1] is folded


# Hooks


def test_hooks_on_modules_of_the_decoder_run(model):
    before = check(model)
    for name, part in list(model.decoder.named_modules())[::2]:
        if isinstance(part, (nn.Dropout, nn.ModuleList)) or name.endswith((".act", "relative_attention_bias")):
            continue
        ran = []

        def hook(_module, _inputs, output, ran=ran):
            ran.append(True)
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, torch.Tensor):
                first = first * 0.9 + 0.1 * first.tanh()
                return (first, *output[1:]) if isinstance(output, tuple) else first
            output.last_hidden_state = output.last_hidden_state * 0.9
            return output

        handle = part.register_forward_hook(hook)
        assert not torch.equal(check(model), before) and ran, name
        handle.remove()
    assert torch.equal(check(model), before)


def test_pruned_and_parametrised_weights_are_those_of_the_forward_pass(model):
    for name in linears(model.decoder)[::3]:
        torch.nn.utils.prune.random_unstructured(model.decoder.get_submodule(name), "weight", amount=0.4)
    check(model)
    for name in linears(model.decoder)[::3]:
        torch.nn.utils.prune.remove(model.decoder.get_submodule(name), "weight")
        torch.nn.utils.parametrizations.weight_norm(model.decoder.get_submodule(name), "weight")
    check(model)


class Clipped(nn.Module):
    """A part that no matrix describes."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, hidden):
        return self.linear(hidden).clamp(-1, 1)


def test_parts_of_other_types_are_called(model):
    for name in linears(model.decoder)[::4]:
        replace(model.decoder, name, Clipped(model.decoder.get_submodule(name)))
    check(model)


def test_a_called_decoder_drops_nothing_in_training(model):
    model.decoder.block[0].register_forward_hook(lambda *_: None)
    expected = model.recommend(**INPUTS)
    model.train()
    assert torch.equal(model.recommend(**INPUTS).item_indices, expected.item_indices)
    assert model.decoder.training and model.decoder.dropout.training
    padded = {name: functional.pad(value, (0, 3)) for name, value in INPUTS.items()}
    torch.testing.assert_close(model.recommend(**padded).scores, expected.scores)


# Adapters


LORA = {"r": 2, "init_lora_weights": False, "lora_dropout": 0.5}
ADAPTERS = {
    "lora": peft.LoraConfig(target_modules=["q", "k", "v", "o", "wi", "wo", "query", "lm_head"], **LORA),
    "dora": peft.LoraConfig(target_modules=["q", "k", "v", "o", "wi", "wo"], use_dora=True, **LORA),
    "embeddings": peft.LoraConfig(target_modules=["decoder.embed_tokens", "q"], **LORA),
    "saved": peft.LoraConfig(target_modules=["q"], modules_to_save=["lm_head", "final_layer_norm"], **LORA),
    "ia3": peft.IA3Config(target_modules=["k", "v", "wo"], feedforward_modules=["wo"], init_ia3_weights=False),
    "loha": peft.LoHaConfig(target_modules=["q", "v", "lm_head"], r=2, init_weights=False),
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapters_count_and_can_be_switched_off(model, kind):
    before = check(model)
    adapted = peft.get_peft_model(model, ADAPTERS[kind])
    inner = adapted.get_base_model()
    for weight in adapted.parameters():
        if weight.requires_grad:
            weight.data += 0.3 * torch.randn_like(weight)
    adapted.eval()
    assert not isinstance(inner._search_decoder(torch.zeros(1)), CalledDecoder)
    after = check(adapted, inner=inner)
    assert not torch.allclose(before, after)
    with adapted.disable_adapter():
        torch.testing.assert_close(check(adapted, inner=inner), before)
    adapted.train()
    found = adapted.recommend(**INPUTS, top_k=20, num_beams="exact")
    torch.testing.assert_close(found.scores, after.gather(1, found.item_indices), rtol=1e-4, atol=1e-4)
    assert inner.decoder.block[0].layer[0].SelfAttention.q.training


# Offloading and compiling


def test_offloaded_weights_are_brought(model, tmp_path):
    expected = check(model)
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    assert model.lm_head.weight.device.type == "meta"
    torch.testing.assert_close(check(model), expected)
    accelerate.hooks.remove_hook_from_module(model, recurse=True)
    accelerate.disk_offload(model, tmp_path, execution_device=torch.device("cpu"))
    torch.testing.assert_close(check(model), expected)


PRESETS = ["mender", "mender-lite", "mender-fid", "sasrec", "popularity"]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_model_can_be_offloaded(tmp_path, preset):
    method = small_method(preset, encoder_folder(tmp_path))
    model, processor = method.model.eval(), method.processor
    inputs = processor("find tea", processor.item_ids[:3])
    expected, buffers = model.recommend(**inputs), copy.deepcopy(model)
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    assert all(weight.device.type == "meta" for weight in model.parameters())
    found = model.recommend(**inputs)
    assert torch.equal(found.item_indices, expected.item_indices)
    torch.testing.assert_close(found.scores, expected.scores)
    if list(buffers.buffers()):
        accelerate.cpu_offload(buffers, execution_device=torch.device("cpu"), offload_buffers=True)
        with pytest.raises(ValueError, match="is offloaded.*offload_buffers=False"):
            buffers.recommend(**inputs)


def test_adapted_item_embeddings_count(tmp_path):
    method = small_method("sasrec", encoder_folder(tmp_path))
    inputs = method.processor(None, method.processor.item_ids[:3])
    adapted = peft.get_peft_model(method.model, peft.LoraConfig(target_modules=["items", "qkv"], **LORA)).eval()
    found = adapted.recommend(**inputs)
    merged = adapted.merge_and_unload().recommend(**inputs)
    torch.testing.assert_close(found.scores, merged.scores)


def test_compiled_models_recommend_the_same(model):
    expected = model.recommend(**INPUTS)
    for part in (torch.compile(model, backend="eager"), copy.deepcopy(model)):
        if not hasattr(part, "_orig_mod"):
            part.decoder = torch.compile(part.decoder, backend="eager")
            part.encoder.compile(backend="eager")
        found = part.recommend(**INPUTS)
        assert torch.equal(found.item_indices, expected.item_indices)
        torch.testing.assert_close(found.scores, expected.scores)


# Quantisation


class Int8Linear(nn.Module):
    """A double of a quantised layer: integers, a scale for each row, and its own product."""

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias
        self.scale = nn.Parameter(linear.weight.detach().abs().amax(1, keepdim=True) / 127)
        self.weight = nn.Parameter((linear.weight.detach() / self.scale).round().to(torch.int8), requires_grad=False)

    def forward(self, hidden):
        return functional.linear(hidden, self.weight * self.scale, self.bias)


def overlap(one, other):
    """Mean share of common items."""
    same = (one.item_indices[:, :, None] == other.item_indices[:, None]).any(-1)
    return same.float().mean().item()


def test_quantised_layers_multiply_by_what_they_return(model):
    expected = model.recommend(**INPUTS, top_k=5)
    for name in linears(model):
        replace(model, name, Int8Linear(model.get_submodule(name)))
    check(model)
    assert overlap(model.recommend(**INPUTS, top_k=5), expected) >= 0.8


def test_dynamic_int8(model):
    expected = model.recommend(**INPUTS, top_k=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)
    assert not linears(quantised)
    assert not isinstance(quantised._search_decoder(torch.zeros(1)), CalledDecoder)
    check(quantised, tolerance=0.1)  # activations of the forward pass are quantised as well
    assert overlap(quantised.recommend(**INPUTS, top_k=5), expected) >= 0.8


def needs(name):
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")


@needs("optimum.quanto") if importlib.util.find_spec("optimum") else pytest.mark.skip("optimum-quanto is not installed")
def test_quanto(model):
    from optimum import quanto

    quanto.quantize(model, weights=quanto.qint8)
    check(model)
    quanto.freeze(model)
    check(model)


@needs("torchao")
@pytest.mark.parametrize("kind", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
def test_torchao(model, kind):
    from torchao import quantization

    quantization.quantize_(model, getattr(quantization, kind)())
    check(model, tolerance=1e-4 if kind == "Int8WeightOnlyConfig" else 0.1)


@needs("bitsandbytes")
@pytest.mark.parametrize("bits", [4, 8])
def test_bitsandbytes(tmp_path, bits):
    from transformers import BitsAndBytesConfig

    shape = {"d_model": 64, "d_kv": 32, "num_heads": 2, "d_ff": 64}
    text, decoder = {"model_type": "t5", "vocab_size": 64, "num_layers": 1, **shape}, {"num_layers": 2, **shape}
    model = MenderForGenerativeRetrieval(MenderConfig(text, decoder, codebook_sizes=[4, 6], num_items=20)).eval()
    model.set_catalogue(random_catalogue(20, [4, 6]))
    expected = model.recommend(**INPUTS, top_k=5)
    model.save_pretrained(tmp_path)
    quantised = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    loaded = AutoModel.from_pretrained(tmp_path, quantization_config=quantised, device_map="cpu")
    assert type(loaded.decoder.block[0].layer[0].SelfAttention.q) is not nn.Linear
    check(loaded, tolerance=0.05)
    assert overlap(loaded.recommend(**INPUTS, top_k=5), expected) >= (0.8 if bits == 8 else 0.5)


# Vocabularies


def test_only_the_words_of_the_encoder_are_resized(model, tmp_path):
    expected, head = model.recommend(**INPUTS), model.lm_head.weight
    model.resize_token_embeddings(70)
    assert model.lm_head.weight is head and len(model.get_input_embeddings().weight) == 70
    assert torch.equal(model.recommend(**INPUTS).item_indices, expected.item_indices)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.recommend(**INPUTS).item_indices, expected.item_indices)


@pytest.mark.parametrize("preset", ["mender", "mender-fid"])
def test_tokens_that_would_be_items_are_refused(tmp_path, preset):
    method = small_method(preset, encoder_folder(tmp_path / "encoder"))
    tokens = len(method.processor.tokenizer)
    with pytest.raises(ValueError, match=f"token ids from {tokens} on are items"):
        method.model.resize_token_embeddings(tokens + 1)
    method.model.resize_token_embeddings(pad_to_multiple_of=64)
    method.model.save_pretrained(tmp_path)
    loaded, inputs = AutoModel.from_pretrained(tmp_path), method.processor("find tea", [])
    found = method.model.eval().recommend(**inputs)
    assert torch.equal(loaded.recommend(**inputs).item_indices, found.item_indices)


# Sharding


@pytest.fixture
def process_group(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_sharded_weights_are_refused_until_they_are_gathered(model, process_group):
    from torch.distributed.fsdp import fully_shard

    expected = model.recommend(**INPUTS)
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    fully_shard(model, mesh=mesh)
    with pytest.raises(ValueError, match="sharded.*unshard"):
        model.recommend(**INPUTS)
    model.unshard()
    assert torch.equal(model.recommend(**INPUTS).item_indices, expected.item_indices)


def in_two_processes(rank, store, folder):
    from torch.distributed.fsdp import FullyShardedDataParallel

    torch.set_num_threads(1)
    store = torch.distributed.FileStore(store, 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    model = AutoModel.from_pretrained(folder)
    expected = model.recommend(**INPUTS)
    wrapped = FullyShardedDataParallel(model, device_id=torch.device("cpu"), use_orig_params=True)
    with pytest.raises(ValueError, match="sharded.*summon_full_params"):
        wrapped.recommend(**INPUTS)
    with FullyShardedDataParallel.summon_full_params(wrapped, writeback=False):
        assert torch.equal(wrapped.recommend(**INPUTS).item_indices, expected.item_indices)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_shards_of_two_processes_are_refused_until_they_are_gathered(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    arguments = str(tmp_path / "store"), str(tmp_path / "model")
    torch.multiprocessing.spawn(in_two_processes, arguments, nprocs=2)
