"""Named conversations: what people, clients and agents really send, and what is odd but allowed."""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def bot(text: str) -> Message:
    return {"role": "assistant", "content": text}


def tool(text: str) -> Message:
    return {"role": "tool", "content": text}


def calls(*named: tuple[str, dict[str, Any]], text: str = "") -> Message:
    """An assistant's message with tool calls; arguments have their keys in alphabetical order."""
    inner = [
        {"type": "function", "function": {"name": name, "arguments": arguments}}
        for name, arguments in named
    ]
    return {"role": "assistant", "content": text, "tool_calls": inner}


WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "The city's name"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city"],
        },
    },
}
SEARCH: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "検索: find pages about <anything> & more",
        "parameters": {
            "type": "object",
            "properties": {
                "filters": {
                    "type": "object",
                    "properties": {"lang": {"type": "string"}, "year": {"type": "integer"}},
                    "required": ["lang"],
                },
                "limit": {"type": ["integer", "null"], "description": 'At "most" this many'},
                "query": {"type": "string", "description": "言葉, any <b>text</b> \\ more\n"},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["query", "limit"],
        },
    },
}
CLOCK: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "now",
        "description": "The time.",
        "parameters": {"type": "object", "properties": {}},
    },
}
PARIS = ("get_weather", {"city": "Paris"})
TOKYO = ("get_weather", {"city": "東京", "unit": "celsius"})
FOUND = (
    "search",
    {"filters": {"lang": "ja"}, "limit": 3, "query": "a < b && c > d", "tags": ["x"]},
)

PLAIN: dict[str, list[Message]] = {
    "a question": [user("Hello!")],
    "a system prompt": [system("You are kind."), user("Hello!")],
    "a system prompt of two lines": [system("One.\nTwo."), user("Hello!")],
    "two system prompts": [system("One."), system("Two."), user("Hello!")],
    "three system prompts": [system("1"), system("2"), system("3"), user("Hello!")],
    "a late system prompt": [user("Hello!"), bot("Hi."), system("Be brief."), user("And?")],
    "a system prompt after the question": [user("Hello!"), system("Be brief.")],
    "systems before and after": [system("A"), user("Hello!"), system("B")],
    "an empty system prompt": [system(""), user("Hello!")],
    "an empty and a full system prompt": [system(""), system("B"), user("Hello!")],
    "a system prompt of spaces": [system("  "), user("Hello!")],
    "two turns": [user("Hello!"), bot("Hi."), user("How are you?")],
    "three turns": [user("1"), bot("2"), user("3"), bot("4"), user("5")],
    "six turns": [*(m for n in range(5) for m in (user(f"q{n}"), bot(f"a{n}"))), user("q5")],
    "a thought in the history": [user("1"), bot("<think>hm</think>2"), user("3")],
    "a thought without its opening": [user("1"), bot("hm</think>2"), user("3")],
    "only the end of a thought": [user("1"), bot("</think>"), user("3")],
    "an end of thought at the end": [user("1"), bot("2</think>"), user("3")],
    "two ends of thought": [user("1"), bot("a</think>b</think>c"), user("3")],
    "an opening alone": [user("1"), bot("<think>2"), user("3")],
    "nearly an end of thought": [user("1"), bot("a</think b</thin>c<//think>"), user("3")],
    "newlines around a thought": [user("1"), bot("<think>\nhm\n</think>\n\n2"), user("3")],
    "an end of thought asked about": [user("What is </think>?")],
    "a long thought": [user("1"), bot("<think>" + "hm " * 500 + "</think>2"), user("3")],
    "an empty question": [user("")],
    "a question of spaces": [user("   ")],
    "a question of newlines": [user("\n\n")],
    "spaces around": [user("  Hello!  "), bot("  Hi.  "), user("\tAgain\t")],
    "an empty answer": [user("1"), bot(""), user("3")],
    "an answer of a newline": [user("1"), bot("\n"), user("3")],
    "trailing newlines": [user("Hello!\n\n"), bot("Hi.\n"), user("And?\n")],
    "windows newlines": [user("a\r\nb\r\n")],
    "japanese": [system("あなたは親切です。"), user("こんにちは"), bot("はい。"), user("元気？")],
    "chinese": [
        system("该助手为DeepSeek Chat，由深度求索公司创造。\n今天是3月24日，星期一。"),
        user("你好"),
    ],
    "emoji": [user("👋🏽 hi 👨‍👩‍👧"), bot("🎉"), user("❤️‍🔥?")],
    "right to left": [user("שלום"), bot("مرحبا"), user("؟")],
    "combining marks": [user("é ñ ệ"), bot("Å"), user("क्षि")],
    "ideographic space": [user("全角\u3000空白\u00a0x\u200bx\u200dx")],
    "line separators": [user("a\u2028b\u2029c\u0085d")],
    "control characters": [user("a\x01b\x1bc\x7fd\x08e\x0bf\x0c")],
    "html": [user("<b>&amp; \"quoted\" 'single'</b>"), bot("a < b > c & d"), user("ok")],
    "jinja in the text": [user("{{ 7*7 }} {% if x %} {# y #}"), bot("{{ bos_token }}"), user("?")],
    "go template in the text": [
        user("{{ .System }} {{- end -}}"),
        bot("{{ template `x` }}"),
        user("?"),
    ],
    "json": [user('{"role": "user", "content": "\\u003c"}')],
    "backslashes": [user("C:\\new\\table \\n \\\\ \\u0041")],
    "a code block": [user("```python\nprint('<think>')\n```"), bot("```\nok\n```"), user("?")],
    "percent": [user("100% %s %d %%")],
    "a user's mark": [user("a<｜User｜>b")],
    "an assistant's mark": [user("a<｜Assistant｜>b</think>c")],
    "an end of sentence": [user("a<｜end▁of▁sentence｜>b")],
    "a begin of sentence": [user("<｜begin▁of▁sentence｜>a")],
    "marks of tools": [user("<｜tool▁calls▁begin｜>x<｜tool▁output▁end｜>")],
    "marks in an answer": [user("1"), bot("<｜User｜>2<｜tool▁sep｜>"), user("3")],
    "marks in a system prompt": [system("<｜Assistant｜></think>"), user("1")],
    "ascii look-alikes": [user("<|User|> <|end_of_sentence|>")],
    "a very long question": [user("word " * 3000)],
    "only a system prompt": [system("Be kind.")],
}
"""Without tools; none ends in an assistant's message or has two of one role in a row."""

TOOLS: dict[str, tuple[list[Message], list[dict[str, Any]]]] = {
    "tools offered": ([user("Weather?")], [WEATHER]),
    "tools and a system prompt": ([system("Be kind."), user("Weather?")], [WEATHER]),
    "three tools": ([user("Weather?")], [WEATHER, SEARCH, CLOCK]),
    "a tool without parameters": ([user("Time?")], [CLOCK]),
    "nested and translated parameters": ([user("Find it")], [SEARCH]),
    "a call": ([user("Weather?"), calls(PARIS), tool("sunny")], [WEATHER]),
    "a call without the tools": ([user("Weather?"), calls(PARIS), tool("sunny")], []),
    "a call with words": ([user("?"), calls(PARIS, text="Let me see."), tool("sunny")], [WEATHER]),
    "two calls": ([user("?"), calls(PARIS, TOKYO), tool("sunny"), tool("雨")], [WEATHER]),
    "three calls": (
        [user("?"), calls(PARIS, TOKYO, FOUND), tool("1"), tool("2"), tool("3")],
        [WEATHER],
    ),
    "an answer after the output": (
        [user("?"), calls(PARIS), tool("sunny"), bot("It is sunny."), user("And Tokyo?")],
        [WEATHER],
    ),
    "a thought after the output": (
        [user("?"), calls(PARIS), tool("sunny"), bot("a</think>b"), user("And?")],
        [WEATHER],
    ),
    "two rounds of calls": (
        [user("?"), calls(PARIS), tool("sunny"), calls(TOKYO), tool("雨")],
        [WEATHER],
    ),
    "calls after an answer": (
        [user("1"), bot("2"), user("?"), calls(PARIS), tool("sunny"), bot("ok"), user("3")],
        [WEATHER],
    ),
    "a late system prompt among calls": (
        [user("?"), calls(PARIS), tool("sunny"), system("Be brief.")],
        [WEATHER],
    ),
    "an empty output": ([user("?"), calls(("now", {})), tool("")], [CLOCK]),
    "an output of json": ([user("?"), calls(PARIS), tool('{"t": 21, "s": "<b>"}')], [WEATHER]),
    "a user after the output": (
        [user("?"), calls(PARIS), tool("sunny"), user("Thanks")],
        [WEATHER],
    ),
    "no arguments": ([user("?"), calls(("now", {})), tool("12:00")], [CLOCK]),
    "arguments of every kind": (
        [
            user("?"),
            calls(
                (
                    "search",
                    {"a": None, "b": True, "c": 1.5, "d": [], "e": [1, "x", {"y": {}}], "f": -3},
                )
            ),
            tool("ok"),
        ],
        [SEARCH],
    ),
    "arguments with marks and quotes": (
        [
            user("?"),
            calls(("search", {"query": '<a href="x">&\'\\\n\t｜</a> 東京 🎉'})),
            tool("ok"),
        ],
        [SEARCH],
    ),
    "marks in an output": ([user("?"), calls(PARIS), tool("<｜tool▁output▁end｜>x")], [WEATHER]),
}

PREFILLED: dict[str, list[Message]] = {
    "a begun answer": [user("Count"), bot("1, 2,")],
    "a begun thought": [user("Count"), bot("<think>First")],
    "a begun answer after turns": [user("1"), bot("2"), user("3"), bot("4 and")],
    "an empty begun answer": [user("1"), bot("")],
    "a begun answer after a thought": [user("1"), bot("hm</think>2")],
    "a begun answer after an output": [user("?"), calls(PARIS), tool("sunny"), bot("It is")],
}
"""End in an assistant's message, with which the model goes on."""
