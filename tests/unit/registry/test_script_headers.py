"""The loader of Lua files: a header that disagrees with its body is refused."""

import hashlib
import re
from pathlib import Path

import pytest

from registry.store.scripts import Script, load_script, load_scripts

ROOT = Path(__file__).parents[3]
SCRIPTS = sorted(ROOT.glob("*/store/lua/*.lua"))

GOOD = """\
-- Takes the lease if no one else holds it.
-- KEYS 1 leader string
-- KEYS 2 epoch integer
-- ARGV 1 candidate id
-- RETURNS granted epoch | held holder remaining_ms

redis.call('SET', KEYS[1], ARGV[1])
return {'granted', redis.call('INCR', KEYS[2])}
"""
LISTED = """\
-- Empties queues.
-- KEYS 1 index hash
-- KEYS 2.. queues sorted sets
-- RETURNS emptied

redis.call('DEL', KEYS[1])
for i = 2, #KEYS do redis.call('DEL', KEYS[i]) end
return {'emptied'}
"""


def _load(folder: Path, source: str) -> Script:
    path = folder / "verb.lua"
    path.write_text(source)
    return load_script(path)


def test_a_script_knows_its_keys_arguments_words_and_sha(tmp_path: Path):
    script = _load(tmp_path, GOOD)
    assert script.name == "verb"
    assert script.keys == ("leader", "epoch")
    assert script.args == ("candidate",)
    assert script.words == {"granted", "held"}
    assert script.sha == hashlib.sha1(GOOD.encode()).hexdigest()
    assert not script.open_ended


def test_a_script_takes_exactly_what_its_header_names(tmp_path: Path):
    script = _load(tmp_path, GOOD)
    assert script.takes(2, 1)
    assert not any(script.takes(*count) for count in [(1, 1), (3, 1), (2, 0), (2, 2), (0, 0)])


def test_the_last_keys_may_be_a_list_of_any_length_and_none(tmp_path: Path):
    script = _load(tmp_path, LISTED)
    assert script.open_ended
    assert [script.takes(keys, 0) for keys in (0, 1, 2, 3, 50)] == [False, True, True, True, True]
    assert not script.takes(2, 1)


@pytest.mark.parametrize(
    ("find", "put", "words"),
    [
        ("-- KEYS 2 epoch integer\n", "", "uses KEYS that the header does not name"),
        ("-- ARGV 1 candidate id\n", "", "uses ARGV that the header does not name"),
        ("ARGV[1]", "ARGV[2]", "uses ARGV that the header does not name"),
        ("KEYS[2]", "KEYS[0]", "uses KEYS that the header does not name"),
        ("KEYS[2]", "KEYS[1]", "names KEYS that the body does not use"),
        ("ARGV[1]", "'me'", "names ARGV that the body does not use"),
        ("-- KEYS 2 epoch", "-- KEYS 3 epoch", "KEYS 3 epoch is out of order"),
        ("-- KEYS 1 leader", "-- KEYS 2 leader", "KEYS 2 leader is out of order"),
        ("-- ARGV 1", "-- ARGV 0", "ARGV 0 candidate is out of order"),
        ("-- KEYS 1 leader", "-- KEYS 1.. leader", "only the last KEYS may be a list"),
        ("-- KEYS 2 epoch integer", "-- KEYS 2 epoch", "uses KEYS that the header does not name"),
        ("-- RETURNS granted epoch | held holder remaining_ms\n", "", "RETURNS"),
        ("-- Takes the lease", "\n-- Takes the lease", "sentence of guarantee"),
        ("-- Takes the lease", "local x = 1 -- Takes", "sentence of guarantee"),
    ],
)
def test_a_header_that_disagrees_with_its_body_is_refused(
    tmp_path: Path, find: str, put: str, words: str
):
    assert GOOD.count(find) == 1
    with pytest.raises(ValueError, match=re.escape(words)) as refused:
        _load(tmp_path, GOOD.replace(find, put))
    assert str(refused.value).startswith("verb.lua: ")


def test_an_answer_is_split_into_its_word_and_what_came_with_it(tmp_path: Path):
    reply = _load(tmp_path, GOOD).reply([b"held", b"other", b"250"])
    assert (reply.word, reply.text(), reply.integer(1)) == ("held", "other", 250)


def test_an_answer_the_header_does_not_name_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match=r"verb\.lua answered 'stale'"):
        _load(tmp_path, GOOD).reply([b"stale"])


def test_a_folder_gives_its_lua_files_by_name(tmp_path: Path):
    (tmp_path / "one.lua").write_text(GOOD)
    (tmp_path / "two.lua").write_text(LISTED)
    (tmp_path / "notes.txt").write_text("no script")
    assert sorted(load_scripts(tmp_path)) == ["one", "two"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_of_ours_loads_and_answers_only_with_words_of_its_header(path: Path):
    script = load_script(path)
    answers = set(re.findall(r"return \{\s*'(\w+)'", script.source))
    assert answers <= script.words


def test_a_script_that_opens_with_its_keys_lacks_the_sentence_of_guarantee(tmp_path: Path):
    with pytest.raises(ValueError, match="sentence of guarantee"):
        _load(tmp_path, GOOD.partition("\n")[2])
