"""Study files: what they become, and that every mistake is told, all at once."""

from __future__ import annotations

import errno
from collections import defaultdict
from pathlib import Path

import pytest

from clipstudy import data, spec, tasks, tasksfile
from clipstudy.backbones.described import has_attention
from clipstudy.cli import selecting
from clipstudy.errors import StudyError
from clipstudy.job import Selection, keys, layer_label, plan
from clipstudy.spec import ModelSpec, Study, digest, model_from, task_from
from clipstudy.tasks.task import Metric, options

ROOT = Path(__file__).parents[2]
GOOD = """
[study]
name = "small"
seeds = [1, 2]
[models.bert]
source = "transformers"
checkpoint = "./bert"
layers = 3
role = "bert"
[models.bert-untrained]
twin_of = "bert"
init = "random"
init_seeds = [0, 1]
[datasets.shift]
reader = "senteval"
path = "./shift.txt"
[tasks.shift]
kind = "classify"
dataset = "shift"
category = "syntactic"
"""


def parse(text: str) -> Study:
    return tasksfile.parse(text, Path("/there/small.toml"))


def of(study: Study) -> str:
    return digest(study.models["bert"], study.datasets["shift"], study.tasks["shift"])


def mend(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_study() -> None:
    study = parse(GOOD)
    assert study.name == "small"
    assert list(study.models) == ["bert", "bert-untrained-0", "bert-untrained-1"]
    twin = study.models["bert-untrained-1"]
    assert (twin.family, twin.init_seed, twin.twin_of, twin.checkpoint) == ("bert-untrained", 1, "bert", "./bert")
    assert twin.role is None  # a twin plays no part in the claims unless it says so
    assert study.tasks["shift"].seeds == (1, 2)
    assert study.tasks["shift"].options["hidden"] == 50
    assert len(keys(plan(study, Selection()))) == 3 * 4


IMAGES = """
[models.vit]
source = "timm"
checkpoint = "./vit"
layers = 12
modality = "image"
[models.bert]
source = "transformers"
checkpoint = "./bert"
layers = 3
[datasets.scenes]
reader = "images"
path = "./scenes"
columns = { image = "img", label = "fine_label" }
[tasks.scenes]
kind = "classify"
dataset = "scenes"
layers = "stages"
"""


def test_a_tasks_modality_is_its_readers() -> None:
    study = parse(IMAGES)
    task = study.tasks["scenes"]
    assert (task.modality, task.options["profile"], task.options["views"]) == ("image", "images", ["gap", "native"])
    assert [(k.model, k.layer) for k in keys(plan(study, Selection()))] == [("vit", k) for k in (3, 6, 9, 12)]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            'options = { profile = "senteval" }',
            '[tasks.scenes.options] profile: found "senteval". What exists: images.',
        ),
        (
            'options = { views = ["mean"] }',
            '[tasks.scenes.options] views: "mean" is none of images. What exists: 2x2, cls,',
        ),
        ("options = { control = true }", "[tasks.scenes.options] control: found true"),
        ('metric = "selectivity"', '[tasks.scenes] metric: found "selectivity"'),
        ('modality = "text"', "[tasks.scenes] modality: unknown key."),
    ],
)
def test_what_images_have_not(line: str, says: str) -> None:
    with pytest.raises(StudyError) as error:
        parse(f"{IMAGES}{line}\n")
    assert says in error.value.message


def test_a_model_takes_in_what_its_source_or_tower_does() -> None:
    tower = '[models.tower]\nsource = "open_clip"\ncheckpoint = "x"\ntower = "image"\nlayers = 4\n'
    study = parse(mend('"transformers"', '"timm"') + tower)
    assert {name: model.modality for name, model in study.models.items()} == {
        "bert": "image", "bert-untrained-0": "image", "bert-untrained-1": "image", "tower": "image",
    }  # fmt: skip


VIT = IMAGES.partition("[models.vit]")[2].partition("[models.bert]")[0]
OWN = """
[models.vit]
source = "torch"
checkpoint = "lab.nets:vit"
pretrained = "./vit.safetensors"
modality = "image"
layers = ["stem", "blocks.0", "blocks.1"]
size = 32
std = [0.2, 0.2, 0.2]
[models.vit-untrained]
twin_of = "vit"
init = "random"
[models.bert]"""
OWN = OWN + IMAGES.partition("[models.bert]")[2]


def test_layers_may_be_named_where_the_model_is_the_users_own() -> None:
    study = parse(OWN.replace('"stages"', '"all"'))
    for model in (study.models["vit"], study.models["vit-untrained"]):
        assert (model.layers, model.modules, model.std) == (3, ("stem", "blocks.0", "blocks.1"), (0.2,) * 3)
        assert [layer_label(model, k) for k in range(4)] == ["stem", "stem", "blocks.0", "blocks.1"]
        assert model_from(spec.plain(model)) == model
    others = [parse(OWN.replace(*change)) for change in (('"blocks.1"', '"norm"'), ("size = 32", "size = 64"))]
    assert len({digest_of(study), *map(digest_of, others)}) == 3


def digest_of(study: Study) -> str:
    return digest(study.models["vit"], study.datasets["scenes"], study.tasks["scenes"])


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("lab.nets:vit", "lab.nets", '[models.vit] checkpoint: found "lab.nets", expected "package.module:factory"'),
        ('pretrained = "./vit.safetensors"', "", '[models.vit] pretrained: missing. Name a safetensors file'),
        ('layers = ["stem", "blocks.0", "blocks.1"]', "layers = 3", "[models.vit] layers: found 3, expected the names"),
        ('"blocks.1"]', '"stem"]', "expected each name once"),
        ('"blocks.1"]', "1]", "[models.vit] layers: found ['stem', 'blocks.0', 1], expected a whole number"),
        ('["stem", "blocks.0", "blocks.1"]', "[]", "expected 1 or more"),
        ("size = 32", "", "[models.vit] size: found None"),
        ("std = [0.2, 0.2, 0.2]", "std = [0.2, 0, 0.2]", "std: found [0.2, 0.0, 0.2], expected three numbers"),
        ("std = ", "mean = [1.0] # ", "[models.vit] mean: found [1.0], expected three numbers"),
        ('"torch"', '"timm"', "[models.vit] layers: found ['stem', 'blocks.0', 'blocks.1'], but source = \"timm\""),
        ('"torch"', '"timm"', '[models.vit] size: source = "timm" takes it from'),
        ('modality = "image"', 'modality = "text"', 'modality: found "text", but source = "torch" has image models'),
        ('modality = "image"', 'modality = "image"\nfinal_norm = true', "final_norm: which of its modules is the last"),
        ("size = 32", 'modules = ["stem"]', "[models.vit] modules: unknown key"),
    ],
)  # fmt: skip
def test_what_a_model_of_the_users_own_must_say(old: str, new: str, says: str) -> None:
    assert old in OWN
    with pytest.raises(StudyError) as error:
        parse(OWN.replace(old, new, 1))
    assert says in error.value.message


def test_a_task_may_name_its_models() -> None:
    study = parse(IMAGES.replace("[models.bert]", "[models.vit-b]\n" + VIT + "[models.bert]") + 'models = ["vit-*"]\n')
    assert {key.model for key in keys(plan(study, Selection()))} == {"vit-b"}
    whole = parse(IMAGES)
    assert digest_of(study) == digest_of(whole), "whom it is put to changes no result"
    assert task_from(spec.plain(study.tasks["scenes"])) == study.tasks["scenes"]
    with pytest.raises(
        StudyError, match=r'\[tasks.scenes\] models: "vitt" is no image model of this study. Did you mean "vit"'
    ):
        parse(IMAGES + 'models = ["vitt"]\n')
    with pytest.raises(StudyError, match=r'models: "bert" is no image model of this study'):
        parse(IMAGES + 'models = ["bert"]\n')


def test_a_text_task_has_no_views_of_images() -> None:
    with pytest.raises(StudyError, match='views: "gap" is none of texts'):
        parse(GOOD + 'options = { views = ["gap"] }\n')
    with pytest.raises(StudyError, match='profile: found "images"'):
        parse(GOOD + 'options = { profile = "images" }\n')


def test_which_layers_a_task_wants_is_no_part_of_a_result() -> None:
    whole, some = parse(GOOD), parse(GOOD + 'layers = "blocks"\n')
    assert of(whole) == of(some) and len(keys(plan(some, Selection()))) == 3 * 3
    with pytest.raises(StudyError, match='layers: found \'whole\', but kind = "classify" wants "all"'):
        parse(GOOD + 'layers = "whole"\n')
    with pytest.raises(StudyError, match=r'\[tasks.shift\] layers: found "some"'):
        parse(GOOD + 'layers = "some"\n')


@pytest.mark.parametrize("file", ["tasks.toml", "tests/real/study.toml"])
def test_shipped_studies_are_good(file: str) -> None:
    study = tasksfile.load(ROOT / file)
    assert plan(study, Selection())


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[study]", "[stdy]", '[stdy]: unknown table. Did you mean "study"?'),
        ('name = "small"', 'name = "\\n"', "[study] name: found '\\n', expected letters on one line"),
        ('name = "small"', 'name = "small.toml"', "[study] name: found"),
        ("checkpoint =", "chekpoint =", '[models.bert] chekpoint: unknown key. Did you mean "checkpoint"?'),
        ('source = "transformers"', "", "[models.bert] source: missing"),
        ('"transformers"', '"transformer"', 'source: found "transformer". Did you mean "transformers"?'),
        ("layers = 3", 'layers = "3"', "[models.bert] layers: found '3', expected a whole number"),
        ("layers = 3", "layers = true", "[models.bert] layers: found True, expected a whole number"),
        ("layers = 3", "layers = 0", "expected 1 or more"),
        ("layers = 3", 'layers = 3\nmodality = "image"', 'found "image", but source = "transformers" has text models'),
        ('"transformers"', '"timm"\nmodality = "text"', 'modality: found "text", but source = "timm" has image models'),
        ('"transformers"', '"timm"\nmodality = "image"\nview = "eot"', 'view: found "eot". What exists: cls, gap.'),
        ("layers = 3", 'layers = 3\ndtype = "float16"', "[models.bert] dtype"),
        ("layers = 3", 'layers = 3\nview = "mean"', "[models.bert] view"),
        ("layers = 3", 'layers = 3\nname = "x"', "[models.bert] name: unknown key"),
        ("layers = 3", 'layers = 3\npretrained = "x"', 'pretrained: source = "transformers" does not use it'),
        ('"transformers"', '"open_clip"\nbos = false', 'bos: source = "open_clip" does not use it'),
        ('"transformers"', '"timm"\nmodality = "image"\nmax_tokens = 9', 'max_tokens: source = "timm" does not use it'),
        ('"transformers"', '"open_clip"\ntower = "image"\nmax_tokens = 9', "max_tokens: an image has no tokens"),
        ("layers = 3", "layers = 3\ninit_seed = 3", 'init_seed: found 3 without init = "random"'),
        ('twin_of = "bert"', 'twin_of = "bart"', 'twin_of: found "bart", no such model. Did you mean "bert"?'),
        ('init = "random"', 'init = "rand"', 'init: found "rand". Did you mean "random"?'),
        ("init_seeds = [0, 1]", "init_seeds = 3", "init_seeds: found 3, expected a list"),
        ("init_seeds = [0, 1]", "init_seeds = [-1]", "init_seeds: found [-1], expected"),
        ("init_seeds = [0, 1]", "init_seeds = [0, 0]", "init_seeds: found [0, 0], expected"),
        ("init_seeds = [0, 1]", "init_seed = 4294967296", "found 4294967296, expected a whole number from 0"),
        ("[models.bert]", "[models.bert-untrained-1]\ntwin_of = 'bert'\n[models.bert]", "[models.bert-untrained-1]: a"),
        ('init = "random"', "", "init_seeds"),
        ('init = "random"\ninit_seeds = [0, 1]', "", 'twin_of: found "bert" without init = "random"'),
        ('reader = "senteval"', 'reader = "sent"', "[datasets.shift] reader"),
        ('path = "./shift.txt"', "", 'path or hub: found neither. reader = "senteval" wants one: path'),
        ('path = "./shift.txt"', 'hub = "org/shift"', 'path or hub: found hub. reader = "senteval" wants one: path'),
        (
            '"senteval"',
            '"table"\nhub = "org/shift"',
            'path or hub: found path and hub. reader = "table" wants one: path',
        ),
        ('path = "./shift.txt"', 'path = "./s"\nexclude = {train = [1]}', "[datasets.shift] exclude: reader ="),
        ('path = "./shift.txt"', 'path = "./s"\nconfig = "x"', 'config: reader = "senteval" does not use it'),
        (
            'path = "./shift.txt"',
            'path = "./s"\nrevision = "x"',
            "What exists: checksum, hint, limit, limit_seed, path, reader, unseen_labels, url.",
        ),
        (
            'path = "./shift.txt"',
            'path = "./s"\nurl = "https://x.org/s"',
            "[datasets.shift] url: found without a checksum",
        ),
        ('path = "./shift.txt"', 'path = "./s"\nurl = "x.org/s"', 'url: found "x.org/s", expected an address'),
        (
            'path = "./shift.txt"',
            'path = "./s"\nurl = "https://x.org/ü"',
            'url: found "https://x.org/ü", expected ASCII characters. Percent-encode the others',
        ),
        ('path = "./shift.txt"', 'path = "./s"\nchecksum = "md5:1"', 'checksum: found "md5:1", expected "sha256:"'),
        ('path = "./shift.txt"', 'path = "./s"\nsplits = {}', "[datasets.shift] splits: reader ="),
        ('path = "./shift.txt"', 'path = "./s"\nbase = "/etc"', "[datasets.shift] base: reader ="),
        ('"senteval"', '"table"\nrevision = "main"', 'revision: reader = "table" does not use it beside `path`'),
        ('"senteval"', '"table"\nexclude = {train = [1]}', 'exclude: reader = "table" does not use it'),
        ('"senteval"', '"conll2000"\nlimit = 9', 'limit: reader = "conll2000" does not use it'),
        ('"senteval"', '"conll2000"\ncolumns = {tokens = "t"}', "columns: reader ="),
        ('"senteval"', '"conll2000"\nexclude = {train = [-1]}', "exclude.train: found -1, expected a whole number"),
        ('"senteval"', '"conll2000"\nexclude = {train = 81}', "exclude.train: found 81, expected a list"),
        ('"senteval"', '"conll2000"\nexclude = {train = ["81"]}', "exclude.train: found '81', expected a whole number"),
        ('"senteval"', '"conll2000"\nexclude = {trian = [81]}', 'exclude: "trian" is no split. Did you mean "train"?'),
        ('"senteval"', '"conll2000"\nexclude = [81]', "[datasets.shift] exclude: found [81], expected a table"),
        ('"senteval"', '"csv"', 'reader: found "csv". Did you mean "table"?'),
        ('"senteval"', '"table"\ncolumns = {txt = "t"}', 'columns: found txt = "t". Did you mean "text"?'),
        (
            '"senteval"',
            '"table"\nsplits = {validation = "dev"}',
            'the other way round: splits = { dev = "validation" }',
        ),
        ('"senteval"', '"table"\nsplits = {dev = 3}', "splits.dev: found 3, expected a text"),
        ('"senteval"', '"table"\ncolumns = {text = ["a"]}', "columns.text: found ['a'], expected a text"),
        ('path = "./shift.txt"', 'path = "./s"\nlimit_seed = -1', "limit_seed: found -1, expected a whole number"),
        ('path = "./shift.txt"', 'path = "./s"\nlimit = 1', "limit: found 1"),
        ('"senteval"', '"wic"\ndevelopment = 1.0', "development: found 1.0, expected a share of train"),
        ('"senteval"', '"boolq"\ndevelopment = 0', "development: found 0.0, expected a share of train"),
        ('"senteval"', '"senteval"\ndevelopment = 0.2', 'development: reader = "senteval" does not use it'),
        ('kind = "classify"', 'kind = "clasify"', 'kind: found "clasify". Did you mean "classify"?'),
        ('kind = "classify"', "", "[tasks.shift] kind: missing"),
        ('path = "./shift.txt"', 'path = "./shift.txt"\nunreadable = 1.5', "unreadable: found 1.5, expected a share"),
        ('dataset = "shift"', 'dataset = "shft"', 'dataset: found "shft". Did you mean "shift"?'),
        ('kind = "classify"', 'kind = "phrase_clusters"', "reads conll2000"),
        ("seeds = [1, 2]", "seeds = [1, 1]", "[study] seeds: found [1, 1], expected a list of different whole numbers"),
        ("seeds = [1, 2]", "seeds = [-1]", "[study] seeds: found [-1], expected"),
        ('category = "syntactic"', "seeds = [4294967296]", "[tasks.shift] seeds: found [4294967296], expected"),
        ('category = "syntactic"', "seeds = [true]", "[tasks.shift] seeds: found [True], expected"),
        ('category = "syntactic"', "seeds = 3", "[tasks.shift] seeds: found 3, expected a list"),
        ('category = "syntactic"', 'metric = "acuracy"', 'metric: found "acuracy". Did you mean "accuracy"?'),
        ('category = "syntactic"', "options = {l2 = [nan]}", "[tasks.shift.options] l2: found nan, expected a finite"),
        ('category = "syntactic"', "options = {dropout = -inf}", "dropout: found -inf, expected a finite number"),
        ('category = "syntactic"', f"options = {{dropout = 1{'0' * 400}}}", "expected a finite number"),
        ('category = "syntactic"', 'options = {profile = ["default"]}', "[tasks.shift.options] profile: found"),
        ("seeds = [1, 2]", "seeds = []", "seeds: found []"),
        ('category = "syntactic"', "method = 3", "[tasks.shift] method: unknown key"),
        ('category = "syntactic"', "options = 3", "[tasks.shift] options: found 3, expected a table"),
        ('category = "syntactic"', "options = {hiden = 3}", 'hiden: unknown key. Did you mean "hidden"?'),
        ('category = "syntactic"', "options = {hidden = 0}", "[tasks.shift.options] hidden: found 0"),
        ('category = "syntactic"', 'options = {probes = ["mlb"]}', 'probes: found "mlb". Did you mean "mlp"?'),
        ('category = "syntactic"', "options = {probes = []}", "probes: found [], expected one or more, each once"),
        ('category = "syntactic"', 'options = {profile = "senteva"}', 'Did you mean "senteval"?'),
        ("[models.bert]", "[models.'be rt']", "a name has letters"),
        ("[datasets.shift]", "[datasets]\nx = 3\n[datasets.shift]", "[datasets.x]: found 3, expected a table"),
    ],
)
def test_mistakes_are_named(old: str, new: str, says: str) -> None:
    with pytest.raises(StudyError) as error:
        parse(mend(old, new))
    assert says in error.value.message
    assert error.value.message.startswith("/there/small.toml")
    assert error.value.message.endswith("retry.")


@pytest.mark.parametrize("seed", ["-1", "4294967296", "4294967295"])
def test_a_sample_seed_must_be_one_for_every_sample(seed: str) -> None:
    chunks = mend('"senteval"', '"conll2000"').replace('"classify"', '"phrase_clusters"')
    with pytest.raises(StudyError, match=f"sample_seed: found {seed}"):
        parse(chunks.replace('category = "syntactic"', f"options = {{sample_seed = {seed}}}"))
    assert parse(chunks.replace('category = "syntactic"', "options = {sample_seed = 4294967291}"))


def test_seeds_are_the_tasks_else_the_studys_else_the_kinds() -> None:
    own = 'category = "syntactic"\nseeds = [7]'
    assert parse(mend('category = "syntactic"', own)).tasks["shift"].seeds == (7,)
    assert parse(GOOD).tasks["shift"].seeds == (1, 2)
    kind = tasks.load("classify")
    assert parse(mend("seeds = [1, 2]", "")).tasks["shift"].seeds == kind.SEEDS


@pytest.mark.parametrize("kind", tasks.kinds())
def test_a_kinds_own_metric_and_seeds_are_good(kind: str) -> None:
    module = tasks.load(kind)
    assert module.METRIC in module.metrics(options(module, {}))
    assert set(module.metrics(options(module, {}))) <= set(module.METRICS)
    assert module.SEEDS and len(set(module.SEEDS)) == len(module.SEEDS)


def test_kinds_show_a_metric_of_one_name_alike() -> None:
    shown: dict[str, set[Metric]] = defaultdict(set)
    for kind in tasks.kinds():
        for name, metric in tasks.load(kind).METRICS.items():
            shown[name].add(metric)
    assert {name for name, metrics in shown.items() if len(metrics) > 1} == set()


def test_a_metric_that_the_options_leave_out_is_refused() -> None:
    asked = 'category = "syntactic"\nmetric = "selectivity"\noptions = { control = CONTROL }'
    parse(mend('category = "syntactic"', asked.replace("CONTROL", "true")))
    with pytest.raises(StudyError, match=r'metric: found "selectivity". What exists: accuracy, macro_f1\.'):
        parse(mend('category = "syntactic"', asked.replace("CONTROL", "false")))


def test_every_key_that_a_reader_uses_is_good() -> None:
    values = {"limit": "9", "limit_seed": "1", "config": '"c"', "revision": '"r"', "splits": '{dev = "validation"}'}
    values |= {"exclude": "{train = [0, 81]}", "unseen_labels": '"drop"'}
    values |= {"development": "0.2", "development_seed": "1", "unreadable": "0.01"}
    values |= {"url": '"https://x.org/y"', "checksum": f'"sha256:{"0" * 64}"'}
    for reader, places in data.READERS.items():
        values["columns"] = f'{{{next(iter(data.COLUMNS.get(reader, ["text"])))} = "t"}}'
        for place, keys_ in places.items():
            table = "".join(f"{key} = {values[key]}\n" for key in keys_)
            text = mend('path = "./shift.txt"', f'{place} = "./x"\n{table}').replace('"senteval"', f'"{reader}"')
            kind = next((k for k in tasks.kinds() if reader in tasks.load(k).READERS), None)
            if kind:
                parse(text.replace('"classify"', f'"{kind}"'))
            else:  # no kind reads it: that is the only problem
                with pytest.raises(StudyError, match=rf'1 problem\n.*has reader = "{reader}", but kind = "classify"'):
                    parse(text)


def test_all_problems_at_once() -> None:
    with pytest.raises(StudyError, match="3 problems"):
        parse(mend('role = "bert"', "rle = 1").replace('"senteval"', '"x"').replace('"classify"', '"y"'))


def test_not_toml() -> None:
    with pytest.raises(StudyError, match=r"is not TOML.*line 2"):
        parse("[study]\nname = \n")
    with pytest.raises(StudyError, match=r"is not TOML.*5001 digits"):
        parse(f"[study]\nseeds = [1{'0' * 5000}]\n")


@pytest.mark.parametrize(
    ("again", "says"),
    [
        ("[models.bert]", r"\[models.bert\] is there in line \d+, and again in line \d+\. Give one of them another"),
        ('[models."bert"]', r"\[models.bert\] is there in line \d+, and again in line"),
    ],
)
def test_a_table_that_is_there_twice(again: str, says: str) -> None:
    with pytest.raises(StudyError, match=says):
        parse(f"{GOOD}\n{again}\nlayers = 3\n")


def test_no_such_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").touch()
    with pytest.raises(StudyError, match=r"mine\.toml"):
        tasksfile.find("min.toml", tmp_path)


def test_a_study_file_that_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StudyError, match=r'--study "~nobody-of-that-name/x\.toml": no home folder.*--study /FOLDER'):
        tasksfile.find("~nobody-of-that-name/x.toml", tmp_path)

    def refuses(path: Path) -> bool:  # as a folder does that may not be entered; for root there is none
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuses)
    for name in ("x.toml", None):
        with pytest.raises(StudyError, match=r"\.toml cannot be looked at \(Permission denied\).*--study FILE"):
            tasksfile.find(name, tmp_path)


def test_a_study_that_comes_with_the_package_has_a_name(tmp_path: Path) -> None:
    shipped = tasksfile.find("pocket", tmp_path)
    assert tasksfile.load(shipped).name == "pocket"
    with pytest.raises(StudyError, match=r"Did you mean \"pocket\"\?"):
        tasksfile.find("pockt", tmp_path)
    (tmp_path / "pocket").write_text(GOOD)
    assert tasksfile.find("pocket", tmp_path) == tmp_path / "pocket"


def test_a_study_named_by_its_path_is_the_one_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    for folder in (home, here):
        folder.mkdir()
        (folder / "mine.toml").touch()
        (folder / "tasks.toml").touch()
    (home / "yours.toml").touch()
    monkeypatch.chdir(here)
    assert tasksfile.find("mine.toml", home) == tasksfile.find("./mine.toml", home) == here / "mine.toml"
    assert tasksfile.find("yours.toml", home) == home / "yours.toml"
    assert tasksfile.find(None, home) == home / "tasks.toml", "the study of the home that was chosen"


class TestDigest:
    def digest(self, text: str) -> str:
        return of(parse(text))

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ('role = "bert"', 'role = "other"\nlabel = "B"\nbatch_size = 8'),
            ('category = "syntactic"', 'category = "semantic"\nlabel = "S"'),
            ('name = "small"', 'name = "big"\nnote = "Not real."'),
            ('path = "./shift.txt"', 'path = "./shift.txt"\nhint = "Type: make data"'),
            ("layers = 3", "layers = 4"),
            ('category = "syntactic"', "options = {hidden = 50}"),  # what is the default anyway
        ],
    )
    def test_presentation_does_not_enter(self, old: str, new: str) -> None:
        assert self.digest(mend(old, new)) == self.digest(GOOD)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ('checkpoint = "./bert"', 'checkpoint = "./bert2"'),
            ("layers = 3", "layers = 3\nfinal_norm = true"),
            ('path = "./shift.txt"', 'path = "./shift.txt"\nlimit = 10'),
            ("seeds = [1, 2]", "seeds = [1, 2, 3]"),
            ('category = "syntactic"', "options = {hidden = 60}"),
            ('category = "syntactic"', 'options = {profile = "senteval"}'),
        ],
    )
    def test_what_decides_does(self, old: str, new: str) -> None:
        assert self.digest(mend(old, new)) != self.digest(GOOD)

    def test_method_version_enters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = self.digest(GOOD)
        monkeypatch.setattr(tasks.load("classify"), "METHOD", 99)
        assert self.digest(GOOD) != before

    def test_the_folder_does_not(self) -> None:
        there = tasksfile.parse(GOOD, Path("/elsewhere/small.toml"))
        assert of(there) == self.digest(GOOD)


ATTENTION = """
[study]
name = "sights"
[models.vit]
source = "timm"
checkpoint = "vit_base_patch16_224.dino"
modality = "image"
layers = 12
[models.rn50]
source = "timm"
checkpoint = "resnet50.tv_in1k"
modality = "image"
layers = 4
[datasets.scenes]
reader = "images"
path = "./scenes"
columns = { image = "img", label = "fine_label", mask = "mask" }
[tasks.scenes]
kind = "classify"
dataset = "scenes"
[tasks.sights]
kind = "attend"
dataset = "scenes"
"""


def test_models_without_attention_are_not_asked_for_it() -> None:
    study = parse(ATTENTION)
    assert study.unable == {"sights": frozenset({"rn50"})}
    asked = [(k.model, k.layer) for k in keys(plan(study, Selection(tasks=("sights",))))]
    assert asked == [("vit", k) for k in range(1, 13)]


@pytest.mark.parametrize(
    ("models", "tasks"),
    [(("rn50",), ("sights",)), (("rn*",), ("sights",)), (("rn50", "vit"), ("sights",)), (("rn50",), ("si*",))],
)
def test_who_asks_them_by_name_is_told(models: tuple[str, ...], tasks: tuple[str, ...]) -> None:
    study, chosen = parse(ATTENTION), Selection(models, tasks)
    said = selecting.wrong(study, chosen, plan(study, chosen))
    assert said and "[models.rn50] has no attention, which [tasks.sights] looks at" in said and "run it: vit." in said


@pytest.mark.parametrize(
    ("models", "tasks"),
    [((), ()), (("rn50",), ()), (("*",), ("sights",)), (("rn50", "vit"), ("*",)), ((), ("sights",))],
)
def test_who_asks_for_all_is_not(models: tuple[str, ...], tasks: tuple[str, ...]) -> None:
    study, chosen = parse(ATTENTION), Selection(models, tasks)
    assert selecting.wrong(study, chosen, plan(study, chosen)) is None


def test_a_table_of_several_initialisations_is_no_models_name() -> None:
    study = tasksfile.load(tasksfile.shipped()["pocket"])
    chosen = Selection(("bert-untrained",))
    said = selecting.wrong(study, chosen, plan(study, chosen))
    assert said and said.endswith('one for each of its init_seeds. Write them all as "bert-untrained-*".')


@pytest.mark.parametrize(
    ("model", "task", "layers", "says"),
    [
        ("bert", "boolq", (3,), "the cells chosen are measured on whole models, not on layers. Leave out --layer."),
        ("bert", "wic-frozen", (9,), "no cell at layer 9; the cells chosen have layers 0–6. Fix --layer."),
        ("vit", "visualise", (4, 9), "no cell at layer 9; the models chosen have layers 0 to 4. Fix --layer."),
        ("vit", "visualise", (0,), "no cell at layer 0; the cells chosen have layers 1–4. Fix --layer."),
        (
            "bert",
            "shapes",
            (1,),
            "the models chosen read texts, the tasks chosen need images. Fix the models or the tasks.",
        ),
        ("bert", "*", (3, 6), None),
    ],
)
def test_layers_that_nothing_chosen_has(model: str, task: str, layers: tuple[int, ...], says: str | None) -> None:
    """The message names the layers that there are, and never the one that was asked for."""
    study = tasksfile.load(tasksfile.shipped()["pocket"])
    chosen = Selection((model,), (task,), layers)
    said = selecting.wrong(study, chosen, plan(study, chosen))
    assert (said or "").endswith(says or "") and bool(said) == bool(says)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('layers = "all"', '[tasks.sights] layers: found "all", but layer 0 has no attention. Write "blocks"'),
        ("options = { masks = false }", '[tasks.sights] metric: found "jaccard". What exists: distance, diversity'),
        ("options = { mass = 1.0 }", "[tasks.sights.options] mass: found 1.0, expected more than 0 and less than 1"),
        ("options = { pictures = 1 }", "[tasks.sights.options] pictures: found 1, expected 2 or more"),
        ('metric = "edges"', '[tasks.sights] metric: found "edges". What exists: jaccard'),
        ("options = { foreground = [1], masks = false }", "[tasks.sights.options] foreground: found numbers of masks"),
    ],
)
def test_what_looking_at_attention_refuses(line: str, says: str) -> None:
    with pytest.raises(StudyError) as error:
        parse(f"{ATTENTION}{line}\n")
    assert says in error.value.message


@pytest.mark.parametrize(
    ("source", "checkpoint", "attends"),
    [
        ("timm", "vit_base_patch16_224.dino", True),
        ("timm", "hf-hub:timm/resnet50.a1_in1k", False),
        ("timm", "me/resnet50", None),
        ("timm", "./own", True),
        ("timm", "./none", None),
        ("open_clip", "RN50-quickgelu", False),
        ("open_clip", "ViT-B-16-quickgelu", True),
        ("open_clip", "convnext_base_w", None),
        ("open_clip", "./own", False),
        ("open_clip", "ViT-B-61", None),
    ],
)
def test_what_shows_of_attention_before_loading(
    source: str, checkpoint: str, attends: bool | None, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "config.json").write_text('{"architecture": "vit_small_patch16_224"}')
    (own / "open_clip_config.json").write_text('{"model_cfg": {"vision_cfg": {"layers": [1, 1, 1, 1]}}}')
    spec = ModelSpec("m", source, checkpoint, 4, modality="image", base=str(tmp_path))
    assert has_attention(spec) is attends
