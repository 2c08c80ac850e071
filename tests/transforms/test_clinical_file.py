"""Files as people have them: good ones, and those from which nothing may be guessed."""

from __future__ import annotations

import pytest

from shared_nets.refusals import InputRefused
from shared_nets.transforms.clinical_file import read_clinical


@pytest.fixture
def write(tmp_path):
    def write(name, text, encoding="utf-8"):
        path = tmp_path / name
        path.write_text(text, encoding=encoding)
        return path

    return write


def refuse(source, study_id=None):
    with pytest.raises(InputRefused) as refusal:
        read_clinical(source, study_id)
    return refusal.value


def test_a_json_object_is_read(write):
    path = write("c.json", '{"case_id": "a", "age": 61, "Hb": {"value": 135, "unit": "g/L"}}')
    assert read_clinical(path, "a") == {"age": 61, "Hb": {"value": 135, "unit": "g/L"}}
    assert read_clinical(str(path)) == {"age": 61, "Hb": {"value": 135, "unit": "g/L"}}


def test_other_columns_can_say_whose_values_these_are(write):
    path = write("c.csv", "patient_id,picture,age\np,a,61\np,b,62\n")
    assert read_clinical(path, "b", id_columns=("picture",)) == {"patient_id": "p", "age": "62"}


def test_values_in_the_sample_are_taken_as_they_are():
    assert read_clinical({"age": 61}, "a") == {"age": 61}
    assert read_clinical(None, "a") == {}


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        pytest.param("case_id,age,sex\na,61,F\nb,50,M\n", "utf-8", id="commas"),
        pytest.param("case_id;age;sex\r\na;61;F\r\nb;50;M\r\n", "utf-8", id="semicolons"),
        pytest.param("case_id\tage\tsex\na\t61\tF\n\nb\t50\tM\n", "utf-8", id="tabs and an empty line"),
        pytest.param(
            ' case_id , age ,"sex"\n a , 61 ,"F"\n', "utf-8-sig", id="blanks, quotes, byte order mark"
        ),
    ],
)
def test_the_row_of_the_study_is_read(write, text, encoding):
    assert read_clinical(write("c.csv", text, encoding), "a") == {"age": "61", "sex": "F"}


def test_a_single_row_needs_no_id(write):
    assert read_clinical(write("c.csv", "age,sex\n61,F\n"), "a") == {"age": "61", "sex": "F"}
    assert read_clinical(write("d.csv", "id,age\nx,61\n"), None) == {"age": "61"}


@pytest.mark.parametrize(
    ("text", "study_id", "message"),
    [
        pytest.param("case_id,age\na,1\nb,2\n", "c", "no rows", id="not there"),
        pytest.param("case_id,age\na,1\na,2\n", "a", "2 rows", id="twice"),
        pytest.param("age\n1\n2\n", "a", "nothing says which one", id="no id column"),
        pytest.param("case_id,age\na,1\nb,2\n", None, "nothing says which one", id="no id asked for"),
        pytest.param("case_id,age\na,1\n", "b", "names another study", id="one row of somebody else"),
    ],
)
def test_a_table_without_exactly_one_row_of_the_study_is_refused(write, text, study_id, message):
    refusal = refuse(write("c.csv", text), study_id)
    assert refusal.code == "CLINICAL_CASE_NOT_FOUND"
    assert message in refusal.message


def test_values_of_another_study_are_refused():
    assert refuse({"study_id": "b", "age": 61}, "a").code == "CLINICAL_CASE_NOT_FOUND"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("c.json", "{", id="broken JSON"),
        pytest.param("c.json", "[1]", id="JSON list"),
        pytest.param("c.json", "[" * 100_000, id="deep JSON"),
        pytest.param("c.csv", "", id="empty table"),
        pytest.param("c.csv", "age,sex\n", id="no row"),
        pytest.param("c.csv", "age,sex\n61\n", id="short row"),
        pytest.param("c.csv", "age,sex\n61,F,1\n", id="long row"),
        pytest.param("c.xlsx", "age", id="another format"),
    ],
)
def test_what_is_neither_an_object_nor_a_table_is_refused(write, name, text):
    assert refuse(write(name, text), "a").code == "CLINICAL_UNREADABLE"


def test_a_file_in_another_encoding_is_refused(write):
    assert refuse(write("c.csv", "größe\n1\n", "latin-1")).code == "CLINICAL_UNREADABLE"


def test_a_folder_and_a_list_are_refused(tmp_path):
    folder = tmp_path / "c.csv"
    folder.mkdir()
    assert refuse(folder).code == "CLINICAL_UNREADABLE"
    assert refuse([1, 2]).code == "CLINICAL_UNREADABLE"


def test_a_missing_file_is_refused(tmp_path):
    assert refuse(tmp_path / "c.json").code == "INPUT_NOT_FOUND"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("c.json", '{"age": 61, "age": 62}', id="JSON"),
        pytest.param("c.csv", "age,age\n61,62\n", id="table"),
    ],
)
def test_a_name_that_stands_twice_is_refused(write, name, text):
    refusal = refuse(write(name, text))
    assert refusal.code == "CLINICAL_GIVEN_TWICE"
    assert '"age" is given twice' in refusal.message
