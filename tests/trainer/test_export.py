from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from drawn_captchas import captcha  # noqa: E402

from scrapy_captcha.bundle import MODEL, WEIGHTS, Manifest, open_bundle  # noqa: E402
from scrapy_captcha.errors import BundleError  # noqa: E402
from scrapy_captcha.recognizer import Recognizer  # noqa: E402
from trainer import conversion, export, networks  # noqa: E402
from trainer.__main__ import main  # noqa: E402
from trainer.conversion import check_conversion, keras_logits, to_tflite  # noqa: E402
from trainer.corpus import Corpus, Sample, Task  # noqa: E402
from trainer.export import pack, to_float32  # noqa: E402
from trainer.transfer import _class_map, faster, fresh, from_base  # noqa: E402
from trainer.weights import load_weights, weights_file  # noqa: E402

TASK = Task("abcdef", 3, 3, "lower")
MANIFEST = Manifest("test", TASK.charset, TASK.length, TASK.min_length, "four_head_compact")


def noise(count):
    return np.random.default_rng(0).random((count, 32, 90))


def write(out, model, golden_images=(), **changes):
    packed = pack(model, replace(MANIFEST, **changes), golden_images)
    packed.write(out)
    return packed


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    keras.utils.set_random_seed(0)
    out = tmp_path_factory.mktemp("bundle")
    golden = [captcha("abc"), captcha("fed")]
    write(out, fresh("four_head_compact", TASK), golden_images=golden, temperature=1.5)
    return out


def test_a_written_bundle_passes_its_golden_check_and_says_what_keras_says(bundle):
    recognizer = Recognizer.load(bundle)
    manifest = recognizer.manifest
    assert (manifest.classes, manifest.length, manifest.temperature) == (6, 3, 1.5)
    assert manifest.case == "lower"
    assert len(manifest.golden) == 2
    model = load_weights(open_bundle(bundle).read(WEIGHTS), manifest)
    pixels = noise(5).astype(np.float32)
    ours = np.stack([recognizer.logits(image) for image in pixels])
    assert ours == pytest.approx(keras_logits(model, pixels), abs=0.05)


def test_a_version_keeps_within_the_limits_of_size(bundle):
    files = open_bundle(bundle).manifest.files
    assert files[MODEL].bytes <= 3 << 20
    assert sum(entry.bytes for entry in files.values()) <= 8 << 20


def test_a_network_trained_in_mixed_precision_is_written_in_float32():
    with networks.computing_in("mixed_bfloat16"):
        mixed = networks.build("four_head_compact", heads=3, classes=6)
    assert keras.config.dtype_policy().name == "float32"
    plain = to_float32(mixed, "four_head_compact")
    assert {layer.compute_dtype for layer in plain.layers} == {"float32"}
    assert keras_logits(plain, noise(3)) == pytest.approx(keras_logits(mixed, noise(3)), abs=0.1)


def test_a_conversion_that_changes_what_is_read_is_refused():
    model, other = fresh("four_head_compact", TASK), fresh("four_head_compact", TASK)
    *trunk, kernel, bias = other.get_weights()
    other.set_weights([*trunk, kernel, bias + np.array([9, 0, 0, 0, 0, 0])])
    with pytest.raises(BundleError, match="a probability moves by"):
        check_conversion(to_tflite(other), model, noise(2))
    weights = model.get_weights()
    model.set_weights([*weights[:-1], weights[-1] * np.nan])
    with pytest.raises(BundleError, match="nan"):
        check_conversion(to_tflite(model), model, noise(2))


def test_each_way_to_store_weights_keeps_what_the_network_says():
    model = fresh("four_head_compact", TASK)
    sizes = []
    for precision, distance in [("int8", 0.1), ("float16", 0.002), ("float32", 1e-4)]:
        content = to_tflite(model, precision)
        assert check_conversion(content, model, noise(3)) <= distance
        sizes.append(len(content))
    assert sizes == sorted(sizes)


def sure(texts):
    """Logits of a network that is certain of these texts."""
    return np.array(
        [[[9.0 * (c == read) for c in TASK.charset] for read in text] for text in texts], np.float32
    )


@pytest.mark.parametrize(
    ("n", "changed", "accepted"),
    [(20, 1, True), (20, 2, False), (1000, 2, True), (1000, 3, False)],
)
def test_the_exact_match_may_differ_by_one_image_or_two_tenths_of_a_point(
    monkeypatch, n, changed, accepted
):
    labels = ["abc"] * n
    samples = tuple(Sample(f"{i}.png", label, b"") for i, label in enumerate(labels))
    shown = Corpus(samples, np.zeros((n, 32, 90), np.float16), ())
    other = ["abd"] * changed + labels[changed:]
    monkeypatch.setattr(conversion, "litert_logits", lambda *_: sure(other))
    monkeypatch.setattr(conversion, "keras_logits", lambda *_: sure(labels))
    if accepted:
        found = conversion.compare_exact(b"", None, MANIFEST, shown)
        assert found == {"litert": 1 - changed / n, "keras": 1.0, "n": n}
    else:
        with pytest.raises(BundleError, match=f"of {n} images it reads {n - changed} right"):
            conversion.compare_exact(b"", None, MANIFEST, shown)


def test_weights_that_quantisation_spoils_are_stored_in_more_bits_with_a_line_on_it(monkeypatch):
    model, other = fresh("four_head_compact", TASK), fresh("four_head_compact", TASK)
    *trunk, kernel, bias = other.get_weights()
    other.set_weights([*trunk, kernel, bias + np.array([9, 0, 0, 0, 0, 0])])

    def spoilt(given, precision="int8"):
        return to_tflite(other if precision == "int8" else given, precision)

    monkeypatch.setattr(conversion, "to_tflite", spoilt)
    packed = pack(model, MANIFEST, [captcha("abc")])
    assert packed.manifest.provenance["export"]["weights"] == "float16"
    (line,) = packed.notes
    assert "with int8 weights, a probability moves by" in line
    assert line.endswith("float16 weights are used")
    monkeypatch.setattr(export, "MAX_MODEL_BYTES", 1000)  # a limit of shipped bundles alone
    (line,) = pack(model, MANIFEST, [captcha("abc")]).oversize()
    assert "more than the 1000 of a shipped bundle" in line
    monkeypatch.setattr(conversion, "to_tflite", lambda *_: to_tflite(other))
    with pytest.raises(BundleError, match="with float32 weights, a probability moves"):
        pack(model, MANIFEST, [captcha("abc")])


def test_weights_of_another_version_of_the_architecture_are_no_base():
    image = keras.Input((32, 90, 1))
    flat = keras.layers.Flatten()(keras.layers.MaxPooling2D(8)(image))
    other = keras.layers.Reshape((3, 6))(keras.layers.Dense(18)(flat))
    with pytest.raises(BundleError, match="not those of four_head_compact in this version"):
        faster(keras.Model(image, other), "four_head_compact")


def test_code_in_a_weights_file_is_not_run(tmp_path):
    image = keras.Input((32, 90, 1))
    evil = keras.Model(image, keras.layers.Lambda(lambda x: x + 1)(image))
    with pytest.raises(BundleError, match=f"cannot load {WEIGHTS}"):
        load_weights(weights_file(evil), MANIFEST)
    with pytest.raises(BundleError, match=f"cannot load {WEIGHTS}"):
        load_weights(b"not a keras file", MANIFEST)


def test_a_charset_that_does_not_fit_the_network_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"expected logits of shape \(3, 5\)"):
        write(tmp_path / "out", fresh("four_head_compact", TASK), charset="abcde")
    assert not (tmp_path / "out").exists()


def test_the_same_task_keeps_all_of_the_base_and_another_charset_the_known_characters(bundle):
    base = open_bundle(bundle)
    same = from_base(base, TASK)
    stored = load_weights(base.read(WEIGHTS), base.manifest)
    assert keras_logits(same, noise(2)) == pytest.approx(keras_logits(stored, noise(2)))
    other = from_base(base, Task("fxa", 3, 3, "lower"))
    found, known = keras_logits(other, noise(2)), keras_logits(stored, noise(2))
    assert found[..., [0, 2]] == pytest.approx(known[..., [5, 0]], abs=1e-5)


def test_a_letter_starts_from_the_other_case_where_the_base_lacks_its_own(bundle, tmp_path):
    base = open_bundle(bundle)
    known = keras_logits(load_weights(base.read(WEIGHTS), base.manifest), noise(2))
    both = from_base(base, Task("abAB0", 3, 3, "as-is"))
    found = keras_logits(both, noise(2))
    assert found[..., :4] == pytest.approx(known[..., [0, 1, 0, 1]], abs=1e-5)
    write(tmp_path, both, charset="abAB0", case="as-is")
    fewer = from_base(open_bundle(tmp_path), Task("bA", 3, 3, "as-is"))
    assert keras_logits(fewer, noise(2)) == pytest.approx(found[..., [1, 2]], abs=1e-5)
    capitals = Manifest("up", "AB", 3, 3, "four_head_compact")
    assert _class_map(capitals, Task("ab", 3, 3, "lower")).tolist() == [0, 1]


@pytest.mark.parametrize("architecture", networks.ARCHITECTURES)
def test_another_length_keeps_the_features_under_new_heads(tmp_path, architecture):
    model = fresh(architecture, TASK)
    write(tmp_path, model, architecture=architecture)
    longer = from_base(open_bundle(tmp_path), Task("abcdef", 4, 3, "lower"))
    assert longer.output_shape == (None, 4, 7)
    features = [keras.Model(m.input, m.get_layer("features").output) for m in (model, longer)]
    before, after = (np.asarray(f(noise(2)[..., None])) for f in features)
    assert before == pytest.approx(after, abs=1e-5)


def test_a_base_without_the_network_that_it_describes_is_refused(tmp_path, bundle):
    good = open_bundle(bundle)
    broken = fresh("four_head_compact", Task("ab", 2, 2, "lower"))
    folder = tmp_path / "broken"
    folder.mkdir()
    content = weights_file(broken)
    (folder / WEIGHTS).write_bytes(content)
    (folder / MODEL).write_bytes(good.read(MODEL))
    description = json.loads(good.manifest.to_json())
    description["files"][WEIGHTS] |= {"bytes": len(content)}
    manifest = Manifest.from_json(json.dumps(description))
    (folder / "bundle.json").write_text(manifest.to_json(), encoding="utf-8")
    with pytest.raises(BundleError, match="sha256"):
        from_base(open_bundle(folder), TASK)


@pytest.mark.parametrize(("form", "name"), [("tflite", MODEL), ("keras", WEIGHTS)])
def test_export_takes_a_checked_file_out_of_the_bundle(bundle, tmp_path, capsys, form, name):
    assert main(["export", "--model", str(bundle), "--out", str(tmp_path), "--format", form]) == 0
    written = tmp_path / f"test.{form}"
    assert capsys.readouterr().out.strip() == str(written)
    assert written.read_bytes() == open_bundle(bundle).read(name)


def test_export_to_onnx_without_its_converters_says_what_to_install(
    bundle, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    command = ["export", "--model", str(bundle), "--out", str(tmp_path), "--format", "onnx"]
    assert main(command) == 2
    assert "pip install 'scrapy-captcha[onnx]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_whatever_fails_in_a_converter_is_a_line_and_nothing_is_written(
    bundle, tmp_path, capsys, monkeypatch
):
    def fail(*_, **__):
        raise TypeError("no such operator")

    monkeypatch.setattr(keras.Model, "export", fail)
    command = ["export", "--model", str(bundle), "--out", str(tmp_path), "--format", "onnx"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert said == "error: cannot be converted to ONNX: TypeError: no such operator\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:In the future `np:FutureWarning")
@pytest.mark.parametrize("architecture", ["four_head_compact", "four_head_vgg"])
def test_an_exported_onnx_file_says_what_keras_says(tmp_path, architecture):
    pytest.importorskip("tf2onnx")
    runtime = pytest.importorskip("onnxruntime")
    write(tmp_path / "test", fresh(architecture, TASK), architecture=architecture)
    command = ["export", "--model", str(tmp_path / "test"), "--out", str(tmp_path)]
    assert main([*command, "--format", "onnx"]) == 0
    session = runtime.InferenceSession(tmp_path / "test.onnx")
    (entry,) = session.get_inputs()
    assert (entry.name, entry.shape) == ("image", [1, 32, 90, 1])
    pixels = noise(3).astype(np.float32)
    ours = [session.run(None, {"image": image[None, ..., None]})[0][0] for image in pixels]
    stored = open_bundle(tmp_path / "test")
    model = load_weights(stored.read(WEIGHTS), stored.manifest)
    assert np.stack(ours) == pytest.approx(keras_logits(model, pixels), abs=1e-4)


def test_golden_images_are_left_out_where_the_manifest_has_no_room(tmp_path):
    charset = "".join(map(chr, range(0x4E00, 0x4E00 + 4000)))  # as many as GB 2312 has in use
    model = fresh("four_head_compact", Task(charset, 4, 4, "as-is"))
    golden = [captcha("ab", i) for i in range(6)]
    packed = write(tmp_path, model, golden, charset=charset, length=4, min_length=4, case="as-is")
    kept = Recognizer.load(tmp_path).manifest.golden
    assert 0 < len(kept) < 6
    assert [g.image for g in kept] == golden[: len(kept)]
    assert f"has room for {len(kept)} of 6 golden images only" in packed.notes[-1]


def test_a_model_that_exceeds_a_shipped_bundles_size_is_written_with_a_warning(tmp_path):
    charset = "0123456789abcdefghijklmnopqrstuvwxyz"
    model = fresh("four_head_vgg", Task(charset, 4, 4, "lower"))
    packed = write(
        tmp_path, model, architecture="four_head_vgg", charset=charset, length=4, min_length=4
    )
    assert "more than the 8388608 of a shipped bundle" in packed.oversize()[-1]
    assert Recognizer.load(tmp_path).read(captcha("abc")).text
