import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

import seedream_batch
from seedream_batch.validate.schemas import schema_names, schema_text

PACKAGE = Path(seedream_batch.__file__).parent


def read(name):
    return json.loads(schema_text(name))


def parts(schema, path=()):
    """Every subschema that describes a value, with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from parts(child, (*path, name))
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            yield from parts(schema[keyword], (*path, keyword))


def references(value):
    if isinstance(value, dict):
        for key, child in value.items():
            if key == "$ref":
                yield child
            else:
                yield from references(child)
    elif isinstance(value, list):
        for child in value:
            yield from references(child)


def test_there_is_a_schema_for_whatever_is_read_or_written():
    assert schema_names() == ("job", "request", "summary", "status")
    with pytest.raises(KeyError):
        schema_text("other")


@pytest.mark.parametrize("name", schema_names())
def test_schemas_are_valid_and_stand_alone(name):
    schema = read(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "/" not in schema["$id"]
    for reference in references(schema):
        assert reference.removeprefix("#/$defs/") in schema["$defs"]
    used = {reference.removeprefix("#/$defs/") for reference in references(schema)}
    assert used == set(schema["$defs"])


@pytest.mark.parametrize("name", ["job", "request"])
def test_every_field_tells_an_editor_what_it_is(name):
    for path, part in parts(read(name)):
        if "$ref" in part or ("anyOf" in part and path[0] == "exclude"):
            continue
        assert part["title"], path
        assert part["description"].endswith("."), path
        if path:
            assert part["$comment"].startswith("Source: "), path
            assert part["examples"], path


@pytest.mark.parametrize("name", ["summary", "status"])
def test_every_field_of_an_output_says_what_it_is(name):
    for path, part in parts(read(name)):
        if "items" not in path and "additionalProperties" not in path:
            assert part["title"], path
            assert part["description"].endswith("."), path


@pytest.mark.parametrize("name", ["job", "request"])
def test_examples_and_defaults_are_accepted(name):
    schema = read(name)
    for path, part in parts(schema):
        checker = Draft202012Validator({"$defs": schema["$defs"], **part, "$id": "part"})
        if path == () and name == "request":
            continue
        for example in [*part.get("examples", []), *([part["default"]] if "default" in part else [])]:
            assert checker.is_valid(example), (path, example)


def test_every_number_of_references_has_its_clause():
    schema = read("request")
    clauses = schema["$defs"]["count-of-references"]["allOf"]
    most = schema["properties"]["image_urls"]["maxItems"]
    assert most == 14
    assert len(clauses) == most
    for count, clause in enumerate(clauses, start=1):
        rule = schema["$defs"][clause["$ref"].removeprefix("#/$defs/")]
        assert rule["if"]["properties"]["image_urls"] == {"type": "array", "minItems": count, "maxItems": count}
        fields = rule["then"]["properties"]
        assert fields["n"]["maximum"] == 15 - count
        assert fields["sequential_image_generation_options"]["properties"]["max_images"]["maximum"] == 15 - count


def test_no_rule_that_spans_fields_looks_at_the_prompt():
    schema = read("request")
    rules = {key: part for key, part in schema.items() if key not in ("properties", "required")}
    assert not re.search(
        r"prompt(?!_)", json.dumps({k: v for k, v in rules.items() if not k.startswith(("$c", "ti", "de"))})
    )


def test_the_job_offers_what_the_request_takes():
    job, request = read("job"), read("request")["properties"]
    limits = ("type", "enum", "minimum", "maximum", "x-expected", "x-hints", "x-quoted")
    for name in ("size", "resolution", "model", "n", "watermark", "sequential_image_generation"):
        assert {key: job["$defs"][name].get(key) for key in limits} == {key: request[name].get(key) for key in limits}
        assert job["properties"]["matrix"]["properties"][name] == {"$ref": f"#/$defs/{name}-axis"}
    fields = job["properties"]["request"]["properties"]
    assert set(fields) == set(request)
    assert fields["image_urls"]["maxItems"] == request["image_urls"]["maxItems"]
    mode = request["optimize_prompt_options"]["properties"]["mode"]["enum"]
    assert job["$defs"]["optimize-mode"]["enum"] == mode
    most = request["sequential_image_generation_options"]["properties"]["max_images"]
    assert {key: job["$defs"]["max-images"].get(key) for key in limits} == {key: most.get(key) for key in limits}


def run_python(code, folder):
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_schemas_are_found_in_an_installed_package(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "seedream_batch", ignore=shutil.ignore_patterns("__pycache__", "schemas"))
    inside = tmp_path / "seedream_batch" / "schemas"
    inside.mkdir()
    for file in (PACKAGE.parent / "schemas").iterdir():
        shutil.copy(file, inside)
    code = (
        "import seedream_batch.validate.schemas as v; print(v.__file__);"
        "print(*(len(v.schema_text(n)) for n in v.schema_names()))"
    )
    file, told = run_python(code, tmp_path).splitlines()
    assert Path(file).is_relative_to(tmp_path)
    assert told == " ".join(str(len(schema_text(name))) for name in schema_names())


def test_the_schema_library_is_not_loaded_before_it_is_needed():
    code = (
        "import sys; from seedream_batch.validate.request_schema import RequestSchema; RequestSchema().field_types;"
        "print('jsonschema' in sys.modules)"
    )
    assert run_python(code, PACKAGE.parent) == "False"
