"""Settings: what is wrong is refused with the key, the value and the fix; what is saved is read back."""

import dataclasses
import math
import tomllib

import pytest
from fake_experiment import FakeSettings
from hypothesis import given
from hypothesis import strategies as st

from rfho.runs.settings import (
    SettingsError,
    assigned,
    at_least,
    changed,
    fields_of,
    one_of,
    read_toml,
    setting,
    to_toml,
)

finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
positive = st.floats(min_value=5e-324, max_value=1.7e308, exclude_min=False)
settings = st.builds(
    FakeSettings,
    data=st.sampled_from(["digits", "mnist"]),
    seed=st.integers(0, 10**30),
    steps=st.integers(1, 10**6),
    rate=st.floats(min_value=1e-300, max_value=1e300),
    share=st.floats(0, 1),
    radii=st.lists(st.floats(1e-300, 1e300), min_size=1, max_size=5).map(tuple),
    shuffle=st.booleans(),
    note=st.text(),
    wait=st.booleans(),
)


class TestToml:
    @given(settings)
    def test_what_is_saved_is_read_back(self, original):
        read = tomllib.loads(to_toml(original))
        assert changed(FakeSettings(), read) == original

    @pytest.mark.parametrize(
        "content",
        [b"\xff", b"a = [" + b"[" * 10_000, b"a = " + b"9" * 5000, b"a.a = 1\na = 2", b"\0"],
    )
    def test_whatever_is_no_toml_is_one_sentence(self, tmp_path, content):
        path = tmp_path / "some.toml"
        path.write_bytes(content)
        with pytest.raises(SettingsError, match=r"some\.toml is not TOML: ") as caught:
            read_toml(path)
        assert "\n" not in str(caught.value)

    def test_the_meanings_are_comments(self):
        assert "# outer step size\nrate = 0.5\n" in to_toml(FakeSettings())

    def test_a_file_that_is_no_toml_is_named(self, tmp_path):
        path = tmp_path / "some.toml"
        path.write_text("steps = = 3")
        with pytest.raises(SettingsError, match=r"some\.toml is not TOML: .*line 1"):
            read_toml(path)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(
            SettingsError, match=r"settings file .*some\.toml cannot be read \(No such file"
        ):
            read_toml(tmp_path / "some.toml")


class TestAssignments:
    def test_each_type_is_read_as_declared(self):
        assignments = [
            "data=mnist",
            "seed=7",
            "rate=1e-3",
            "share=1",
            "radii=1,2.5",
            "shuffle=FALSE",
            "note=a=b, c",
        ]
        read = assigned(FakeSettings(), assignments)
        assert dataclasses.asdict(read) == {
            "data": "mnist",
            "seed": 7,
            "steps": 3,
            "rate": 1e-3,
            "share": 1.0,
            "radii": (1.0, 2.5),
            "shuffle": False,
            "note": "a=b, c",
            "wait": False,
        }
        assert isinstance(read.share, float)

    @pytest.mark.parametrize("text", ["[1, 2.5]", "1,2.5", " 1 , 2.5 ,", "[1,2.5,]"])
    def test_lists_may_be_written_with_or_without_brackets(self, text):
        assert assigned(FakeSettings(), [f"radii={text}"]).radii == (1.0, 2.5)

    def test_quotes_around_a_text_are_not_part_of_it(self):
        assert assigned(FakeSettings(), ["data='mnist'"]).data == "mnist"

    def test_the_last_assignment_counts(self):
        assert assigned(FakeSettings(), ["seed=1", "seed=2"]).seed == 2

    @pytest.mark.parametrize(
        ("assignment", "message"),
        [
            ("stesp=3", "unknown setting 'stesp' (given '3'): did you mean steps?"),
            ("zzz=3", "(the settings are data, seed, steps"),
            ("steps=1.5", "steps = '1.5': steps (outer steps) must be a whole number"),
            ("steps=true", "steps = 'true'"),
            ("steps=0", "steps = 0: steps (outer steps) must be at least 1"),
            ("rate=fast", "rate = 'fast': rate (outer step size) must be a number"),
            ("rate=nan", "rate = nan: rate (outer step size) must be a finite number"),
            ("rate=-inf", "must be a finite number"),
            ("rate=1e999", "must be a finite number"),
            ("rate=0", "rate = 0.0: rate (outer step size) must be greater than 0"),
            ("share=1.5", "must be between 0 and 1"),
            ("radii=1,-2", "radii = -2.0: radii (bounds on the sum) must be greater than 0"),
            ("radii=1,x", "radii = 'x'"),
            ("radii=[]", "must be a list with at least one element"),
            ("shuffle=maybe", "shuffle = 'maybe': shuffle (whether to shuffle) must be true or"),
            ("data=minst", "must be one of digits, mnist: did you mean mnist?"),
            ("steps", "cannot read the setting 'steps': write key=value"),
            ("=3", "write key=value"),
        ],
    )
    def test_what_is_wrong_is_said_in_one_line(self, assignment, message):
        with pytest.raises(SettingsError) as caught:
            assigned(FakeSettings(), [assignment])
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


class TestTypedValues:
    @pytest.mark.parametrize(
        "changes",
        [
            {"steps": 1.0},
            {"steps": True},
            {"steps": "3"},
            {"rate": "0.1"},
            {"rate": True},
            {"rate": 10**400},
            {"rate": math.nan},
            {"shuffle": 1},
            {"data": 3},
            {"radii": 1.0},
            {"radii": "12"},
            {"radii": [1.0, "2"]},
            {"seed": {"value": 1}},
        ],
    )
    def test_a_value_of_another_type_is_refused_by_name(self, changes):
        with pytest.raises(SettingsError, match=f"^{next(iter(changes))} = "):
            changed(FakeSettings(), changes)

    def test_a_whole_number_is_a_fine_float(self):
        assert isinstance(changed(FakeSettings(), {"rate": 2}).rate, float)

    def test_the_original_stays_as_it_was(self):
        original = FakeSettings()
        changed(original, {"steps": 9})
        assert original.steps == 3


class TestFields:
    def test_fields_say_what_they_are(self):
        fields = {field.key: field for field in fields_of(FakeSettings)}
        assert fields["radii"].type_name == "list of float"
        assert fields["seed"].meaning == "of all that is random"

    def test_a_type_that_no_flat_file_holds_is_refused(self):
        @dataclasses.dataclass(frozen=True)
        class Wrong:
            where: dict[str, int] = dataclasses.field(default_factory=dict)

        with pytest.raises(TypeError, match="the setting 'where' is annotated dict"):
            fields_of(Wrong)

    def test_a_plain_field_needs_no_meaning_and_no_check(self):
        @dataclasses.dataclass(frozen=True)
        class Plain:
            steps: int = 1

        assert assigned(Plain(), ["steps=-5"]).steps == -5
        assert to_toml(Plain()) == "steps = 1\n"

    def test_settings_may_check_what_belongs_together(self):
        @dataclasses.dataclass(frozen=True)
        class Both:
            low: int = setting(1, "the lower end", at_least(0))
            high: int = setting(2, "the upper end")

            def __post_init__(self):
                if self.low > self.high:
                    raise SettingsError(f"low = {self.low}: must not exceed high = {self.high}")

        assert assigned(Both(), ["low=5", "high=6"]) == Both(5, 6)
        with pytest.raises(SettingsError, match="low = 5: must not exceed high = 2"):
            assigned(Both(), ["low=5"])

    def test_a_check_of_words_suggests_nothing_for_a_far_word(self):
        assert one_of("adam", "sgd")("quux") == "must be one of adam, sgd"
