"""One contract for every image model, whatever library it comes from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, load_model, save_file
from timm.data import create_transform, resolve_data_config
from torchvision.transforms.functional import normalize, to_tensor

from clipstudy import backbones, tasksfile
from clipstudy.backbones.pixels import restored
from clipstudy.spec import ModelSpec
from tests.torch import image_checkpoints, own_models
from tests.torch.image_checkpoints import BUILDERS, OWN, Sample, picture
from tests.torch.refusals import refused

pytestmark = pytest.mark.usefixtures("trust")

COMMIT = "c0ffee" + "0" * 34


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    return {name: build(root / name) for name, build in BUILDERS.items()}


@pytest.fixture(scope="module")
def loaded(samples):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPSTUDY_TORCH_PACKAGES", OWN)
        return {name: backbones.load(sample.spec, "cpu") for name, sample in samples.items()}


@pytest.fixture(params=list(BUILDERS))
def name(request):
    return request.param


def batch(backbone, rows=3):
    return torch.stack([backbone.preprocess(picture(seed)) for seed in range(rows)])


def library(sample: Sample):
    """The library's own model and its own transform."""
    folder = sample.spec.checkpoint.removeprefix("local-dir:")
    if sample.spec.source == "open_clip":
        model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        return model.eval(), transform
    if sample.spec.source == "torch":
        return own_model(sample.spec)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return model, create_transform(**resolve_data_config({}, model=model), is_training=False)


def own_model(spec: ModelSpec):
    """The model of ``tests.torch.own_models``, and what its table says of its pictures."""
    model = getattr(own_models, spec.checkpoint.partition(":")[2])().eval()
    load_model(model, spec.pretrained)

    def transform(image):
        side, left, top = min(image.size), *((n - min(image.size)) // 2 for n in image.size)
        small = image.resize((32, 32), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
        return normalize(to_tensor(small), spec.mean, spec.std)

    return model, transform


def close(mine, theirs):
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_shapes_are_what_the_model_says(samples, loaded, name):
    backbone, sample = loaded[name], samples[name]
    states = backbone.states(batch(backbone, 2), range(backbone.depth + 1))
    assert backbone.depth == sample.spec.layers and sorted(states) == list(range(backbone.depth + 1))
    assert backbone.native == sample.native and backbone.summaries == (("gap", "cls") if sample.cls else ("gap",))
    for layer, found in states.items():
        width, side = backbone.widths[layer], sample.sides[layer]
        assert found.map.shape == (2, width, side, side)
        assert (found.cls is None) is not sample.cls
        assert found.cls is None or found.cls.shape == (2, width)
        assert not found.map.requires_grad and not found.map.is_inference()


def test_gradients_flow_to_the_pixels_where_they_are_asked_for(loaded, name):
    backbone = loaded[name]
    pixels = batch(backbone, 1).requires_grad_()
    backbone.states(pixels, [backbone.depth], gradients=True)[backbone.depth].map.square().mean().backward()
    assert pixels.grad is not None and pixels.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in backbone.module.parameters())


def test_the_normalisation_is_what_preprocessing_does(loaded, name):
    backbone = loaded[name]
    grey = backbone.preprocess(Image.new("RGB", (backbone.size[1], backbone.size[0]), (51, 102, 204)))
    back = grey * torch.tensor(backbone.deviation).view(3, 1, 1) + torch.tensor(backbone.mean).view(3, 1, 1)
    assert grey.shape == (3, *backbone.size)
    close(back, torch.tensor([0.2, 0.4, 0.8]).view(3, 1, 1).expand(3, *backbone.size))


def test_layers_are_what_the_library_says(samples, loaded, name):
    backbone, sample = loaded[name], samples[name]
    model, _ = library(sample)
    pixels = batch(backbone)
    states = backbone.states(pixels, range(backbone.depth + 1))
    with torch.no_grad():
        if sample.spec.source == "open_clip":
            more = {"output_extra_tokens": True} if sample.cls else {}
            out = model.visual.forward_intermediates(pixels, intermediates_only=True, **more)
            theirs, prefix = out["image_intermediates"], out.get("image_intermediates_prefix")
        else:
            more = {"return_prefix_tokens": True} if sample.cls else {}
            out = model.forward_intermediates(pixels, intermediates_only=True, norm=False, **more)
            theirs, prefix = zip(*out, strict=True) if sample.cls else (out, None)
    theirs = theirs[-backbone.depth :]  # of a residual network they give the stem too
    for layer in range(1, backbone.depth + 1):
        close(states[layer].map, theirs[layer - 1])
        if sample.cls:
            close(states[layer].cls, prefix[layer - 1][:, 0])


def test_layer_0_is_what_the_first_stage_is_given(samples, loaded, name):
    backbone, sample = loaded[name], samples[name]
    model, _ = library(sample)
    pixels = batch(backbone)
    first = backbone.states(pixels, [0])[0]
    tower = getattr(model, "visual", model)
    with torch.no_grad():
        if sample.maps:
            stem = tower.stem if hasattr(tower, "stem") else None
            given = stem(pixels) if stem else tower.maxpool(tower.act1(tower.bn1(tower.conv1(pixels))))
            close(first.map, given)
        elif sample.spec.source == "open_clip":
            given = tower._embeds(pixels)
            close(first.map.flatten(2).transpose(1, 2), given[:, 1:])
            close(first.cls, given[:, 0])
        else:
            given = tower.norm_pre(tower._pos_embed(tower.patch_embed(pixels)))
            close(first.map.flatten(2).transpose(1, 2), given[:, tower.num_prefix_tokens :])


def test_the_last_layer_is_what_the_librarys_head_reads(samples, loaded, name):
    """From our last raw states the library's own norm and head make the library's own output."""
    backbone, sample = loaded[name], samples[name]
    model, _ = library(sample)
    pixels = batch(backbone)
    last = backbone.states(pixels, [backbone.depth])[backbone.depth]
    with torch.no_grad():
        if sample.spec.source != "open_clip":
            tokens = last.map if sample.maps else last.map.flatten(2).transpose(1, 2)
            theirs = model.forward_features(pixels)
            if sample.maps:
                close(getattr(model, "norm_pre", torch.nn.Identity())(tokens), theirs)
            else:
                close(model.norm(tokens), theirs[:, model.num_prefix_tokens :])
                if sample.cls:
                    close(model.norm(last.cls), theirs[:, 0])
        elif sample.maps:
            close(model.visual.attnpool(last.map), model.encode_image(pixels))
        else:
            close(model.visual.ln_post(last.cls) @ model.visual.proj, model.encode_image(pixels))


def test_one_pass_gives_what_each_layer_gives_alone(loaded, name):
    backbone = loaded[name]
    pixels = batch(backbone)
    together = backbone.states(pixels, range(backbone.depth + 1))
    for layer, states in together.items():
        alone = backbone.states(pixels, [layer])
        assert list(alone) == [layer] and torch.equal(alone[layer].map, states.map)
        assert states.cls is None or torch.equal(alone[layer].cls, states.cls)


def test_the_batch_changes_nothing(loaded, name):
    backbone = loaded[name]
    pixels = batch(backbone, 4)
    whole = backbone.states(pixels, range(backbone.depth + 1))
    for row in range(4):
        single = backbone.states(pixels[row : row + 1], range(backbone.depth + 1))
        for layer in single:
            close(single[layer].map[0], whole[layer].map[row])


def test_every_model_can_be_shown_the_same(loaded, name):
    """All of a picture's central square, whatever the model's own crop is."""
    wide = Image.new("RGB", (96, 64), "red")
    wide.paste("white", (16, 0, 80, 64))
    wide.paste("black", (22, 6, 74, 58))
    shown = restored(loaded[name], loaded[name].preprocess(wide, whole=True)[None])[0]
    frame = shown[:, 0], shown[:, -1], shown[:, :, 0], shown[:, :, -1]
    assert min(side.mean() for side in frame) > 0.6 and shown[:, shown.shape[1] // 2, shown.shape[2] // 2].max() < 0.1
    assert (shown[0] - shown[1]).abs().max() < 0.1, "nothing of what is beside the square"


def test_preprocessing_is_the_librarys(samples, loaded, name):
    _, transform = library(samples[name])
    for size in ((70, 50), (32, 32), (300, 200)):
        image = picture(1, size)
        assert torch.equal(loaded[name].preprocess(image), transform(image))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK", "I;16"])
def test_every_kind_of_image_is_turned_to_rgb(loaded, mode):
    image = picture().convert("L").convert("I").convert("I;16") if mode == "I;16" else picture().convert(mode)
    for name in ("clip-vit", "vit"):
        pixels = loaded[name].preprocess(image)
        assert pixels.shape == (3, 64, 64) and pixels.dtype == torch.float32 and pixels.isfinite().all()


def test_a_pass_ends_at_the_highest_layer_asked_for(loaded, name):
    backbone, reached = loaded[name], []
    stages = backbone._anatomy.stages
    hooks = [stage.register_forward_pre_hook(lambda *_, k=k: reached.append(k)) for k, stage in enumerate(stages, 1)]
    try:
        for layers in ([0], [1], [2, 0]):
            reached.clear()
            backbone.states(batch(backbone, 1), layers)
            # What enters stage 1 is known only as it is called.
            assert reached == list(range(1, max(1, *layers) + 1))
    finally:
        for hook in hooks:
            hook.remove()


def test_final_norm_is_applied_to_the_last_layer_alone(samples, loaded):
    for name in ("clip-vit", "vit", "vit-registers"):
        normed = backbones.load(replace(samples[name].spec, final_norm=True), "cpu")
        pixels = batch(normed)
        with_norm, raw = (b.states(pixels, range(normed.depth + 1)) for b in (normed, loaded[name]))
        model, _ = library(samples[name])
        norm = model.visual.ln_post if name == "clip-vit" else model.norm
        with torch.no_grad():
            close(with_norm[normed.depth].cls, norm(raw[normed.depth].cls))
        for layer in range(normed.depth):
            assert torch.equal(with_norm[layer].map, raw[layer].map)
        assert normed.resolved != loaded[name].resolved
    for name in ("clip-resnet", "resnet", "convnext"):
        refused(replace(samples[name].spec, final_norm=True), "has no norm after its last layer", "Remove the key.")


def test_random_init_depends_on_its_seed_alone(samples, name):
    spec = replace(samples[name].spec, init="random", init_seed=3)
    torch.manual_seed(0)
    first = backbones.load(spec, "cpu")
    drawn = torch.rand(3)
    torch.manual_seed(99)
    again = backbones.load(spec, "cpu")
    other = backbones.load(replace(spec, init_seed=4), "cpu")
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(3)), "loading must not draw from the global generator"
    states = [b.states(batch(b), [b.depth])[b.depth].map for b in (first, again, other)]
    assert torch.equal(states[0], states[1])
    assert (states[0] - states[2]).abs().mean() > 0.1 * states[0].abs().mean()
    assert first.resolved == again.resolved != other.resolved
    assert first.native == samples[name].native


@pytest.mark.parametrize("name", ["clip-resnet", "resnet"])
def test_an_untrained_residual_network_is_more_than_its_shortcuts(samples, name):
    """Libraries start the last norm of each branch at zero: what is between the shortcuts would not count."""
    backbone = backbones.load(replace(samples[name].spec, init="random"), "cpu")
    pixels = batch(backbone)
    before = backbone.states(pixels, [4])[4].map
    for module in backbone._anatomy.stages[3].modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
            module.weight.mul_(-1)
    after = backbone.states(pixels, [4])[4].map
    assert (before - after).abs().mean() > 0.1 * before.abs().mean()


def test_bfloat16(samples, loaded, name):
    half = backbones.load(replace(samples[name].spec, dtype="bfloat16"), "cpu")
    pixels = batch(half)
    exact = loaded[name].states(pixels, range(half.depth + 1))
    for layer, found in half.states(pixels, range(half.depth + 1)).items():
        assert found.map.dtype == torch.bfloat16
        assert (found.map.float() - exact[layer].map).abs().max() < 0.1 * exact[layer].map.abs().max()
    assert half.resolved != loaded[name].resolved


def test_resolved_follows_weights_and_preprocessing(samples, loaded, tmp_path):
    moved = image_checkpoints.of_pocket("vit", tmp_path / "vit")
    assert backbones.load(moved.spec, "cpu").resolved == loaded["vit"].resolved
    config = tmp_path / "vit" / "config.json"
    known = json.loads(config.read_text())
    config.write_text(json.dumps(known | {"pretrained_cfg": known["pretrained_cfg"] | {"mean": [0.1] * 3}}))
    changed = backbones.load(moved.spec, "cpu")
    assert changed.resolved["input"] != loaded["vit"].resolved["input"]
    assert changed.resolved["checkpoint"] != loaded["vit"].resolved["checkpoint"]
    clip = image_checkpoints.of_pocket("clip-vit", tmp_path / "clip")
    config = tmp_path / "clip" / "open_clip_config.json"
    known = json.loads(config.read_text())
    config.write_text(json.dumps(known | {"preprocess_cfg": {"mean": [0.1] * 3}}))
    assert backbones.load(clip.spec, "cpu").resolved["input"] != loaded["clip-vit"].resolved["input"]


def test_the_tag_of_the_weights_says_how_images_are_prepared(samples, loaded, monkeypatch):
    """open_clip's own names hold no preprocessing; it comes with the weights."""
    asked = []
    tag = {"mean": (0.5, 0.5, 0.5), "interpolation": "bilinear", "hf_hub": "owner/name"}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *of: asked.append(of) or tag)
    spec = replace(samples["clip-vit"].spec, pretrained="made")
    backbone = backbones.load(spec, "cpu")
    assert asked == [(f"local-dir:{spec.checkpoint}", "made")]
    seen, own = (json.loads(b.resolved["input"]) for b in (backbone, loaded["clip-vit"]))
    assert seen == own | {"mean": [0.5] * 3, "interpolation": "bilinear"} != own


@pytest.mark.parametrize(
    ("source", "checkpoint", "layers", "widths", "native"),
    [
        ("timm", "resnet50.tv_in1k", 4, (64, 256, 512, 1024, 2048), "gap"),
        ("timm", "vit_small_patch16_224.dino", 12, (384,) * 13, "cls"),
        ("timm", "vit_small_patch16_224", 12, (384,) * 13, "cls"),
        ("open_clip", "RN50-quickgelu", 4, (64, 256, 512, 1024, 2048), "gap"),
        ("open_clip", "ViT-B-16-quickgelu", 12, (768,) * 13, "cls"),
    ],
)
def test_untrained_models_by_their_librarys_names_need_no_file(source, checkpoint, layers, widths, native):
    spec = ModelSpec("m", source, checkpoint, layers, modality="image", init="random")
    backbone = backbones.load(spec, "cpu")
    assert backbone.widths == widths and backbone.native == native
    assert backbone.preprocess(picture()).shape == (3, 224, 224)


def test_architectures_of_equal_weights_are_told_apart():
    """They differ in how they pad; others in their GELU."""
    specs = [
        ModelSpec("m", "timm", f"{name}efficientnet_b0", 7, modality="image", init="random") for name in ("", "tf_")
    ]
    one, two = (backbones.load(spec, "cpu").resolved for spec in specs)
    assert one["checkpoint"] == two["checkpoint"] and one != two


def test_the_papers_names_are_the_libraries():
    """Every image model of the study is published under its name, and computes the GELU that its weights learnt."""
    study = tasksfile.load(Path(__file__).parents[2] / "tasks.toml")
    models = [model for model in study.models.values() if model.modality == "image"]
    for model in (m for m in models if m.init == "pretrained"):
        if model.source == "timm":
            assert model.checkpoint in timm.list_pretrained()
        else:
            tag = open_clip.get_pretrained_cfg(model.checkpoint, model.pretrained)
            config = open_clip.get_model_config(model.checkpoint)
            quick = model.pretrained == "openai"
            assert tag and bool(tag.get("quick_gelu")) == bool(config.get("quick_gelu")) == quick
        twins = [m for m in models if m.twin_of == model.name]
        assert model.optional or (len(twins) == 3 and {m.init for m in twins} == {"random"}), model.name
    assert len({m.role for m in models if m.role}) == 6


def test_weights_by_timms_names_come_from_the_hub_as_safetensors(tmp_path, monkeypatch):
    model = timm.create_model("resnet18.tv_in1k", pretrained=False)
    folder = tmp_path / "hub" / "models--timm--resnet18.tv_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    save_file(model.state_dict(), snapshot / "model.safetensors")
    (snapshot / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    spec = ModelSpec("m", "timm", "resnet18.tv_in1k", 4, modality="image")
    backbone = backbones.load(spec, "cpu")
    assert backbone.resolved["checkpoint"] == COMMIT
    assert "bilinear" in backbone.resolved["input"]
    with torch.no_grad():
        close(backbone.states(batch(backbone), [4])[4].map, model.eval().forward_features(batch(backbone)))
    for reference in ("timm/resnet18.tv_in1k", "hf-hub:timm/resnet18.tv_in1k"):
        assert backbones.load(replace(spec, checkpoint=reference), "cpu").resolved["checkpoint"] == COMMIT
    refused(replace(spec, checkpoint="resnet18.a1_in1k"), "not in the local cache", "clipstudy fetch")


# --- refusals


def test_depth_must_be_the_checkpoints(samples, name):
    spec = samples[name].spec
    refused(replace(spec, layers=14), f"layers = 14, but the checkpoint has {spec.layers}", f"layers = {spec.layers}.")


def test_names_that_do_not_exist():
    spec = ModelSpec("m", "timm", "resnet50.tv_in1k", 4, modality="image")
    refused(replace(spec, checkpoint="resnet55"), 'Did you mean "resnet50"?')
    refused(replace(spec, checkpoint="resnet50.tv_in2k"), "no tag tv_in2k", 'Did you mean "tv_in1k"?')
    refused(replace(spec, checkpoint="resnet50"), "names no weights", "tv_in1k")
    for path in ("/nowhere", "local-dir:/nowhere"):
        refused(replace(spec, checkpoint=path), 'there is no folder "/nowhere"')
    refused(replace(spec, checkpoint="a/b/c"), "there is no folder")


def test_keys_that_do_not_fit(samples):
    timm_, clip = samples["vit"].spec, samples["clip-vit"].spec
    refused(replace(timm_, tower="image"), "one tower", "Remove the key.")
    refused(replace(timm_, pretrained="openai"), 'source "open_clip"')
    refused(replace(timm_, modality="text"), 'Write modality = "image"')
    refused(replace(clip, tower="text"), 'tower = "text" with modality = "image"')
    refused(replace(clip, revision="main"), "Remove it.")
    for spec in (timm_, clip):
        refused(replace(spec, dtype="float16"), "float32, bfloat16")
        refused(replace(spec, view="eot"), "gap, cls")
        refused(replace(spec, max_tokens=20), "Remove it.")
    refused(replace(samples["resnet"].spec, view="cls"), "has no class token", 'Write view = "gap".')
    assert backbones.load(replace(timm_, view="gap"), "cpu").native == "gap"


def test_folders_that_are_not_timms(samples, tmp_path):
    spec = replace(samples["vit"].spec, checkpoint=str(tmp_path))
    refused(spec, "has no config.json that can be read")
    for text, words in (
        ("{", "can be read"),
        ('{"model_type": "bert"}', "no model of timm"),
        ("[]", "no model of timm"),
    ):
        (tmp_path / "config.json").write_text(text)
        refused(spec, words, "timm's layout.")
    for size in ("[0, 0, 0]", "[false, 32, 32]", "[32, 32]", '"3x32x32"', "[3, 32.5, 32]"):
        for text in (
            '{"architecture": "resnet18", "input_size": %s}',
            '{"architecture": "resnet18", "pretrained_cfg": {"input_size": %s}}',
        ):
            (tmp_path / "config.json").write_text(text % size)
            refused(replace(spec, init="random"), "input_size is ", "expected [3, height, width]")
    (tmp_path / "config.json").write_text('{"architecture": "densenet121"}')
    refused(replace(spec, init="random"), "whose layers are not known here", "vision transformer.")


def test_weights_that_cannot_serve(tmp_path):
    for name in ("vit", "clip-vit"):
        spec = image_checkpoints.of_pocket(name, tmp_path / name).spec
        (file,) = Path(spec.checkpoint).glob("*.safetensors")
        whole, weights = file.read_bytes(), load_file(file)
        file.write_bytes(whole[:-10])
        refused(spec, "corrupt or was cut short", "fetch it again")
        save_file({k: v[..., :1].contiguous() if v.ndim else v for k, v in weights.items()}, file)
        refused(spec, "belong together")
        part = {k: v for k, v in weights.items() if "blocks.1." not in k}
        save_file(part, file)
        refused(spec, "belong together")
        file.rename(file.with_suffix(".bin"))
        refused(spec, "no safetensors weights", "can run code")
