import json

from tutorial_utils.base.terminal import printable


def test_control_characters_of_others_do_not_reach_the_terminal():
    assert printable("a\x1b]0;title\x07b\n\x9bc\u202ed") == "a\\u001b]0;title\\u0007b\n\\u009bc\\u202ed"
    assert printable("plain 模型 é\n") == "plain 模型 é\n"


def test_json_stays_json():
    text = json.dumps({"name": "a\x9b\u202e\x7f"}, ensure_ascii=False)
    assert json.loads(printable(text)) == {"name": "a\x9b\u202e\x7f"}
