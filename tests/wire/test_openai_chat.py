"""Streams of the OpenAI chat wire become events: lenient in reading, strict in promises."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backends.collect import Collector
from backends.errors import (
    BackendError,
    ContentFiltered,
    ContextLengthExceeded,
    ProtocolError,
    RateLimited,
    RequestRejected,
    StreamTruncated,
    UpstreamFailed,
)
from backends.types import (
    AnnotationDelta,
    AnswerHead,
    ChatRequest,
    ChoiceEnd,
    Cost,
    Delta,
    Finish,
    HalfUsage,
    ImageDelta,
    ReasoningDelta,
    RefusalDelta,
    ResponseStart,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)
from backends.wire.failure import stream_error
from backends.wire.openai_chat import StreamDecoder
from backends.wire.openai_reply import ChunkEncoder
from backends.wire.openai_usage import read_usage
from backends.wire.sse import COMMENT
from tests.upstream import DONE, answer, choice, chunk, data, delta, usage
from tests.wire.test_sse import split

HEAD = AnswerHead("gen-1", "acme/chat", "acme", 1_700_000_000)
REQUEST = ChatRequest(
    models=("acme/chat",), messages=(), params={}, required=frozenset(), prompt_bytes=0
)


END = data(chunk(choice(0, "stop"))) + DONE


def decode(*reads: bytes) -> tuple[list[StreamEvent], BackendError | None]:
    """Return the events of a stream that arrives in these reads, and what broke it."""
    decoder = StreamDecoder()
    events: list[StreamEvent] = []
    for read in reads:
        events += decoder.feed(read)
        if decoder.done or decoder.failure:
            return events, decoder.failure
    events += decoder.end()
    return events, decoder.failure


def one(body: bytes) -> list[StreamEvent]:
    """Return the events of a stream that must be complete."""
    events, failure = decode(body)
    assert failure is None, failure
    assert isinstance(events[-1], Finish)
    return events


def content(body: bytes) -> list[StreamEvent]:
    """Return what a complete stream said, without start, counts and finish."""
    return [e for e in one(body) if not isinstance(e, ResponseStart | UsageUpdate | Finish)]


def ended(*choices: dict[str, Any]) -> bytes:
    """Return a complete stream of one chunk with these choices, and a stop."""
    return data(chunk(*choices)) + data(chunk(choice(0, "stop"))) + DONE


_texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
_index = st.integers(0, 1)
_json = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=3), st.integers(), max_size=2
)
_deltas: st.SearchStrategy[Delta] = st.one_of(
    st.builds(TextDelta, _index, _texts, st.none() | st.just({"content": [{"token": "a"}]})),
    st.builds(ReasoningDelta, _index, _texts, st.none() | st.lists(_json, min_size=1, max_size=2)),
    st.builds(RefusalDelta, _index, _texts),
    st.builds(ImageDelta, _index, _texts),
    st.builds(AnnotationDelta, _index, st.lists(_json, min_size=1, max_size=2)),
)


def unnumbered(event: StreamEvent) -> StreamEvent:
    """Leave out the ``index`` that entries of lists get for OpenAI's SDKs."""
    name = {ReasoningDelta: "details", AnnotationDelta: "annotations"}.get(type(event))
    if name is None or getattr(event, name) is None:
        return event
    entries = [{k: v for k, v in e.items() if k != "index"} for e in getattr(event, name)]
    return msgspec.structs.replace(event, **{name: entries})


@given(
    st.lists(_deltas, max_size=6),
    st.lists(st.lists(_texts, min_size=1, max_size=3), max_size=2),
    st.sampled_from(["stop", "length", "content_filter"]),
    st.data(),
)
def test_what_we_write_for_clients_reads_back_as_the_same_events(
    deltas: list[Delta], calls: list[list[str]], reason: Any, draw: st.DataObject
) -> None:
    """Encoding and decoding lose nothing, wherever the bytes are cut and comments fall."""
    for number, pieces in enumerate(calls):
        deltas = [*deltas, ToolCallDelta(0, number, f"c{number}", "f", "{")]
        deltas += [ToolCallDelta(0, number, None, None, piece) for piece in pieces]
    encoder = ChunkEncoder(HEAD, REQUEST)
    called = {d.index for d in deltas if isinstance(d, ToolCallDelta)}
    ends = tuple(
        ChoiceEnd(i, "tool_calls" if reason == "stop" and i in called else reason, "word")
        for i in (0, 1)
    )
    told = Usage(9, 5, 4, None, 2)
    body = b"".join([COMMENT, *(encoder.delta(d) for d in deltas)])
    body += encoder.finish(Finish(ends, told), told, Cost(12))
    cuts = draw.draw(st.lists(st.integers(0, len(body)), max_size=12))
    events, failure = decode(*split(body, cuts))
    assert failure is None
    start, *said, finish = events
    assert start == ResponseStart("gen-1", "acme/chat")
    assert [unnumbered(event) for event in said] == deltas
    assert isinstance(finish, Finish)
    assert (finish.choices, finish.usage) == (ends, told)


@given(st.lists(st.integers(0, 3000), max_size=12), st.integers(0, 3000))
def test_a_cut_stream_is_never_finished_and_never_says_more(cuts: list[int], at: int) -> None:
    """Cut anywhere before the finish reason: a prefix of the events, and a truncation."""
    body = b"".join(answer("Grüße ", "🌍 ", "ja", reason="length")[:-2])
    at %= body.index(b'"length"')
    whole = one(body)
    events, failure = decode(*split(body[:at], cuts))
    assert isinstance(failure, StreamTruncated)
    assert events == whole[: len(events)]


@given(st.binary(max_size=40).filter(lambda junk: not set(junk) & set(b"\r\n")))
@example(b"[DONE")
@example(b'{"choices": 5, garbage')
@example(b'{"id": 1, "choices": [{"delta": {"content": 7}}')
@example(b"")
@example(b"NaN")
@example(b"\xff")
def test_data_that_is_not_json_is_dropped_and_counted(junk: bytes) -> None:
    """Never an error, never content, whatever it looks like at first."""
    if junk.rstrip() == b"[DONE]" or _is_json(junk):
        return
    body = data(delta("a")) + b"data: " + junk + b"\n\n" + b"".join(answer("b"))
    events = one(body)
    assert [e.text for e in events if isinstance(e, TextDelta)] == ["a", "b"]
    assert isinstance(events[-1], Finish)
    assert events[-1].dropped_events == 1


def _is_json(payload: bytes) -> bool:
    try:
        msgspec.json.decode(payload)
    except ValueError:
        return False
    return True


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
_places = [
    ("id",), ("model",), ("choices",), ("usage",), ("error",),
    ("choices", 0), ("choices", 0, "index"), ("choices", 0, "delta"), ("choices", 0, "logprobs"),
    ("choices", 0, "finish_reason"),
    *(("choices", 0, "delta", name) for name in (
        "content", "reasoning", "reasoning_content", "reasoning_details", "refusal", "tool_calls")),
    *(("choices", 0, "delta", "tool_calls", 0, name) for name in ("index", "id", "function")),
    *(("choices", 0, "delta", "tool_calls", 0, "function", n) for n in ("name", "arguments")),
    ("usage", "prompt_tokens"), ("usage", "completion_tokens"), ("usage", "prompt_tokens_details"),
]  # fmt: skip


@given(st.sampled_from(_places), _values)
def test_a_chunk_of_any_shape_gives_events_or_one_of_our_errors(
    place: tuple[str | int, ...], value: Any
) -> None:
    """Nothing but a ``BackendError`` comes of a wrong upstream, and every event is well typed."""
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    document: Any = chunk(choice(content="a", tool_calls=[call]), usage=usage(1, 1))
    spot = document
    for step in place[:-1]:
        spot = spot[step]
    spot[place[-1]] = value
    events, _ = decode(data(document), *answer("b"))
    for event in events:
        if not isinstance(event, Finish):
            assert msgspec.convert(msgspec.to_builtins(event), type(event)) == event


def test_nesting_that_no_parser_follows_is_a_protocol_error() -> None:
    """Deep nesting in an upstream's chunk breaks that answer, not the worker."""
    for deep in (b'{"usage": ' + b"[" * 100_000, b'{"x": ' + b"[" * 100_000):
        _, failure = decode(b"data: " + deep + b"\n\n")
        assert isinstance(failure, ProtocolError)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("stop", "stop"), ("end_turn", "stop"), ("STOP", "stop"), ("eos", "stop"),
        ("COMPLETE", "stop"), ("never heard of", "stop"),
        ("length", "length"), ("MAX_TOKENS", "length"), ("model_length", "length"),
        ("tool_calls", "tool_calls"), ("TOOL_CALL", "tool_calls"), ("function_call", "tool_calls"),
        ("content_filter", "content_filter"), ("refusal", "content_filter"),
        ("SAFETY", "content_filter"), ("sensitive", "content_filter"),
        ("content-filter", "content_filter"), ("ESCALATION", "content_filter"),
        ("repetition", "length"), ("CONTINUATION", "length"), ("compaction", "stop"),
    ],
)  # fmt: skip
def test_the_reason_is_normalized_and_the_upstreams_word_kept(raw: str, reason: Any) -> None:
    """Five words for clients; beside them what was really said."""
    finish = one(data(chunk(choice(0, raw, content="a"))) + DONE)[-1]
    assert isinstance(finish, Finish)
    assert finish.choices == (ChoiceEnd(0, reason, raw),)


@pytest.mark.parametrize(
    "raw",
    ["error", "ERROR", "abort", "aborted", "cancelled", "canceled", "USER_CANCEL",
     "insufficient_system_resource", "PUP_LIMITED_DISABLED"],
)  # fmt: skip
def test_a_reason_that_means_failure_is_no_finish(raw: str) -> None:
    """An answer that the upstream gave up must not look complete."""
    events, failure = decode(data(delta("half")) + data(chunk(choice(0, raw))) + DONE)
    assert isinstance(failure, UpstreamFailed)
    assert raw in failure.message
    assert events[-1] == TextDelta(0, "half")


def test_a_stop_after_tool_calls_means_tool_calls() -> None:
    """Some servers say stop either way; clients act on the word."""
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    finish = one(ended(choice(tool_calls=[call])))[-1]
    assert isinstance(finish, Finish)
    assert finish.choices == (ChoiceEnd(0, "tool_calls", "stop"),)


def test_a_finish_reason_that_is_repeated_counts_once() -> None:
    """Some repeat the finished choice in the chunk with usage."""
    body = data(chunk(choice(0, "stop", content="a")))
    body += data(chunk(choice(0, "stop"), usage=usage(3, 1))) + DONE
    assert one(body)[-1] == Finish((ChoiceEnd(0, "stop", "stop"),), Usage(3, 1))


def test_bytes_after_the_end_marker_are_not_read() -> None:
    """The answer is over."""
    decoder = StreamDecoder()
    decoder.feed(b"".join(answer("a")) + data(delta("b")))
    assert decoder.done
    assert decoder.feed(data(delta("c"))) == []
    assert decoder.end() == []


def test_an_end_marker_may_carry_spaces() -> None:
    """`[DONE] ` is meant as `[DONE]`."""
    assert isinstance(one(b"".join(answer("a")[:-1]) + b"data: [DONE] \n\n")[-1], Finish)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], [TextDelta(0, "ab")]),
        (
            [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}],
            [ReasoningDelta(0, "hm")],
        ),
        ([{"type": "thinking", "thinking": "hm"}], [ReasoningDelta(0, "hm")]),
        ([{"type": "other", "text": "a"}, 5, {"type": "text", "text": 5}], []),
        ("", []),
        (None, []),
    ],
)
def test_content_may_come_as_typed_parts(given: Any, expected: list[Delta]) -> None:
    """Text and thinking are told apart; other parts are left out."""
    assert content(ended(choice(content=given))) == expected


def test_reasoning_that_stands_only_in_its_details_is_said() -> None:
    """Some servers give no text beside them; those that do say nothing twice."""
    detail = {"type": "reasoning.text", "text": "Let me see.", "signature": "c2ln"}
    alone = ended(choice(reasoning_details=[detail]))
    assert content(alone) == [ReasoningDelta(0, "Let me see.", [detail])]
    beside = chunk(choice(reasoning="Let me see."))
    after = [data(beside), alone]
    assert content(b"".join(after)) == [
        ReasoningDelta(0, "Let me see."),
        ReasoningDelta(0, "", [detail]),
    ]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ({"id": "c", "function": {"name": "f"}}, ("c", "f", "{}")),
        ({"id": "c", "function": {"name": "f", "arguments": "null"}}, ("c", "f", "{}")),
        ({"index": 2, "function": {"arguments": "x"}}, ("made-up", "tool", "x")),
        ({"id": 0, "function": {"name": "f"}}, ("0", "f", "{}")),
        ({"id": "", "function": {"name": ""}}, None),
        ({"id": None, "function": None}, None),
        ({"function": {"name": None, "arguments": None}}, None),
        ({"function": {"arguments": {"a": [1]}}}, ("made-up", "tool", '{"a":[1]}')),
    ],
)
def test_tool_calls_of_many_servers_are_read(
    call: dict[str, Any], expected: tuple[str, str, str] | None
) -> None:
    """Absent, empty or numeric ids, arguments as an object; a piece that says nothing is none."""
    found = called(ended(choice(tool_calls=[call])))
    assert found == ([] if expected is None else [expected])


def called(body: bytes, index: int = 0) -> list[tuple[str, str, str]]:
    """Return id, name and arguments of each call of a choice; they count from 0."""
    decoder = StreamDecoder(lambda: "made-up")
    collector = Collector()
    collector.add([*decoder.feed(body), *decoder.end()])
    assert decoder.failure is None
    found = next(c for c in collector.answer().choices if c.index == index).calls
    return [(call.id, call.name, call.arguments) for call in found]


def piece(
    index: int | None, id: str | None, name: str | None, arguments: str | None
) -> dict[str, Any]:
    """Return a piece of a call as servers write it."""
    place = {} if index is None else {"index": index}
    return {**place, "id": id, "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    "pieces",
    [
        [[piece(0, "a", "f", "{"), piece(1, "b", "g", "[")], [piece(1, "", "", "]")],
         [piece(0, "", None, "}")]],
        [[piece(None, "a", "f", "{}"), piece(None, "b", "g", "[]")]],
        [[piece(None, "a", "f", "{"), ], [piece(None, None, None, "}")],
         [piece(None, "b", "g", "[]")]],
        [[piece(0, "a", "f", "{}"), piece(0, "b", "g", "[]")]],
        [[piece(0, "a", "f", "{}")], [piece(0, "b", "g", "[]")]],
        [[piece(0, "a", "f", "{")], [piece(0, "a", None, "}")], [piece(0, "b", "g", "[]")]],
        [[piece(0, "a", "f", "")], [piece(0, "a", "f", "{}")], [piece(1, "b", "g", None)],
         [piece(1, None, None, "[]")]],
        [[piece(1, "a", "f", "{}")], [piece(3, "b", "g", "[]")]],
        [[piece(None, "a", "f", "{")], [piece(None, "a", "f", "}")], [piece(None, "a", "f", "")],
         [piece(None, "b", "g", "[]")]],
        [[piece(None, "a", "f", "{")], [piece(None, "b", "g", "[")], [piece(None, "a", None, "}")],
         [piece(None, "b", None, "]")]],
        [[piece(0, "a", "f", "{")], [piece(0, "a2", "f", "}")], [piece(1, "b", "g", "[")],
         [piece(1, "b2", "g", "]")]],
        [[piece(None, "a", "f", "")], [piece(None, None, "f", "{}")],
         [piece(None, "b", "g", "[]")]],
    ],
    ids=["fragments", "no index", "no index, in turn", "same index", "same index, in turn",
         "id repeated", "id and name repeated", "index with gaps", "ended by blanks",
         "ids in turn, no index", "an id each piece", "name repeated without id"],
)  # fmt: skip
def test_pieces_of_calls_find_their_call(pieces: list[list[dict[str, Any]]]) -> None:
    """By position where there is one; another id with a name is another call."""
    body = b"".join(data(chunk(choice(tool_calls=calls))) for calls in pieces)
    expected = [("a", "f", "{}"), ("b", "g", "[]")]
    assert called(body + data(chunk(choice(0, "tool_calls"))) + DONE) == expected


ONE, TWO = '{"x":1}', '{"x":2}'


@pytest.mark.parametrize(
    ("calls", "names"),
    [
        ([piece(None, "null", "f", ONE), piece(None, "null", "g", TWO)], ["f", "g"]),
        ([piece(None, "0", "f", ONE), piece(None, "0", "f", TWO)], ["f", "f"]),
        ([piece(None, "a", "f", ONE), piece(None, "a", "f", TWO)], ["f", "f"]),
        ([piece(None, None, "f", ONE), piece(None, None, "f", TWO)], ["f", "f"]),
        ([piece(None, "None", "f", ""), piece(None, "None", "f", "")], ["f", "f"]),
        ([piece(None, "a", "f", '{"x":1}}'), piece(None, "b", "f", TWO)], ["f", "f"]),
        ([piece(None, "a", "f", '{"x":1'), piece(None, "b", "f", TWO)], ["f", "f"]),
    ],
)
def test_calls_under_one_id_are_told_apart(calls: list[dict[str, Any]], names: list[str]) -> None:
    """Streamed as whole calls, or in a whole answer; each goes out under an id of its own."""
    message = {"choices": [{"message": {"tool_calls": calls}, "finish_reason": "stop"}]}
    for body in (ended(choice(tool_calls=calls)), json.dumps(message).encode()):
        collector = Collector()
        collector.add(one(body))
        [answered] = collector.answer().choices
        assert [call.name for call in answered.calls] == names
        whole = [call["function"]["arguments"] or "{}" for call in calls]
        assert [call.arguments for call in answered.calls] == whole
        ids = {call.id for call in answered.calls}
        assert len(ids) == len(names)
        assert not ids & {"", "null", "None"}


def test_calls_of_a_whole_answer_count_by_their_place_in_the_list() -> None:
    """There are no pieces in it, whatever positions and ids it gives."""
    calls = [piece(0, "", "f", ""), piece(0, "", "f", ""), piece(5, "a", None, ONE)]
    message = {"choices": [{"message": {"tool_calls": calls}, "finish_reason": "stop"}]}
    found = [(name, arguments) for _, name, arguments in called(json.dumps(message).encode())]
    assert found == [("f", "{}"), ("f", "{}"), ("tool", ONE)]


def test_calls_in_a_list_of_content_are_calls() -> None:
    """Snowflake's first API: whole with a level more, streamed with input in pieces."""
    text = {"type": "text", "text": "a"}
    uses = [{"tool_use_id": given, "name": "f", "input": {"x": 1}} for given in ("b", "c")]
    listed = [text, *({"type": "tool_use", "tool_use": use} for use in uses)]
    message = {"message": {"content": "a", "content_list": listed}, "finish_reason": "stop"}
    begun = [[{"type": "tool_use", "tool_use_id": given, "name": "f"}] for given in ("b", "c")]
    more = [[{"type": "tool_use", "input": piece}] for piece in ('{"x":', "1}")]
    pieces = [choice(content_list=piece) for one in begun for piece in (one, *more)]
    stream = b"".join(data(chunk(piece)) for piece in [choice(content="a"), *pieces])
    for body in (json.dumps({"choices": [message]}).encode(), stream + END):
        assert called(body) == [("b", "f", ONE), ("c", "f", ONE)]
        finish = one(body)[-1]
        assert isinstance(finish, Finish)
        assert finish.extras is None


@pytest.mark.parametrize("id", ["a", "0", "null", None])
@pytest.mark.parametrize("index", [0, None])
def test_pieces_that_repeat_id_and_name_are_of_one_call(index: int | None, id: str | None) -> None:
    """Its arguments are not whole before the last of them."""
    fragments = ['{"x":', '{"y":', "1}", "}"]
    body = b"".join(
        data(chunk(choice(tool_calls=[piece(index, id, "f", text)]))) for text in fragments
    )
    assert [call[1:] for call in called(body + END)] == [("f", '{"x":{"y":1}}')]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([("f", '{"x":1}'), ("f", '{"y":1}')], [("f", '{"x":1}'), ("f", '{"y":1}')]),
        ([("f", '{"x":1}'), (None, '{"y":1}')], [("f", '{"x":1}'), ("f", '{"y":1}')]),
        ([("f", ""), ("g", ""), (None, "{}")], [("f", "{}"), ("g", "{}")]),
        ([("f", '{"x":'), ("f", '{"y":1}'), (None, "}")], [("f", '{"x":{"y":1}}')]),
        ([("f", '{"x":1'), (None, "}"), (None, " ")], [("f", '{"x":1} ')]),
    ],
)
def test_calls_without_ids_at_one_position_are_told_apart(
    pieces: list[tuple[str | None, str]], expected: list[tuple[str, str]]
) -> None:
    """By another name, or because the arguments so far are whole."""
    calls = [{"index": 0, "function": {"name": n, "arguments": a}} for n, a in pieces]
    collector = Collector()
    collector.add(one(b"".join(data(chunk(choice(tool_calls=[call]))) for call in calls) + END))
    [answered] = collector.answer().choices
    assert [(call.name, call.arguments) for call in answered.calls] == expected
    assert len({call.id for call in answered.calls}) == len(expected)


@pytest.mark.parametrize(
    "delta",
    [
        {"thinking": "hm"},
        {"reasoning_text": "hm", "content": None},
        {"thinking": {"text": "hm"}},
        {"reasoning_content": "hm", "reasoning_text": "hm"},
    ],
)
def test_reasoning_under_other_names_is_reasoning(delta: dict[str, Any]) -> None:
    """Streamed and whole, and no extra besides."""
    events = one(data(chunk(choice(**delta))) + data({"choices": [choice(content="a")]}) + END)
    said = [e for e in events if isinstance(e, ReasoningDelta | TextDelta)]
    assert said == [ReasoningDelta(0, "hm"), TextDelta(0, "a")]
    message = {**delta, "content": "a"}
    document = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    decoder = StreamDecoder()
    events = [*decoder.feed(json.dumps(document).encode()), *decoder.end()]
    assert [e for e in events if isinstance(e, ReasoningDelta | TextDelta)] == said
    assert isinstance(events[-1], Finish)
    assert events[-1].extras is None


def test_parts_of_other_wires_in_content_are_read() -> None:
    """Text as Responses names it, and images."""
    url = "data:image/png;base64,AA=="
    parts = [
        {"type": "output_text", "text": "a"},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "b"},
    ]
    assert content(data(chunk(choice(content=parts))) + END) == [
        ImageDelta(0, url),
        TextDelta(0, "ab"),
    ]


def test_chunks_may_come_a_line_each() -> None:
    """Without the marks of an event stream; a cut one is no answer."""
    chunks = [delta("a"), delta("b"), chunk(choice(0, "stop"), usage=usage(1, 2))]
    lines = [json.dumps(document).encode() for document in chunks]
    events, failure = decode(b"\n".join(lines))
    assert failure is None
    assert [e.text for e in events if isinstance(e, TextDelta)] == ["a", "b"]
    assert isinstance(events[-1], Finish)
    assert events[-1].usage == Usage(1, 2)
    for cut in (b"\n".join(lines[:2]), b"\n".join([*lines[:2], lines[2][:-9]])):
        assert isinstance(decode(cut)[1], StreamTruncated)


@pytest.mark.parametrize("beside", [{}, {"delta": None}, {"delta": {}}, {"delta": {"content": ""}}])
def test_an_event_may_hold_a_whole_answer(beside: dict[str, Any]) -> None:
    """Of a server that does not stream; its message is read as it is without the event."""
    calls = [piece(0, "0", "f", ""), piece(0, "0", "f", "")]
    message = {"role": "assistant", "content": "Hi", "reasoning": {"text": "hm"}}
    ended = {"index": 0, "message": message | {"tool_calls": calls}, "finish_reason": "stop"}
    document = {"object": "chat.completion", "choices": [ended | beside], "usage": usage(3, 1)}
    assert one(data(document) + DONE)[:3] == one(json.dumps(document).encode())[:3]
    assert content(data(document) + DONE)[:2] == [ReasoningDelta(0, "hm"), TextDelta(0, "Hi")]
    assert [name for _, name, _ in called(data(document) + DONE)] == ["f", "f"]


def test_a_message_that_grows_with_each_chunk_is_said_once() -> None:
    """Perplexity sends it beside deltas, which count; without deltas the last one does."""
    messages = [{"content": text} for text in ("a", "ab", "ab")]
    for deltas in ([{"content": "a"}, {"content": "b"}, {}], [{}, {}, {}], [None, None, None]):
        stream = [
            chunk({"index": 0, "delta": delta, "message": message})
            for delta, message in zip(deltas, messages, strict=True)
        ]
        stream[-1]["choices"][0]["finish_reason"] = "stop"
        said = content(b"".join(map(data, stream)) + DONE)
        assert "".join(event.text for event in said if isinstance(event, TextDelta)) == "ab"


def test_the_old_function_call_is_a_tool_call() -> None:
    """In pieces, and with its old finish reason."""
    body = data(chunk(choice(function_call={"name": "f", "arguments": ""})))
    body += data(chunk(choice(function_call={"arguments": "{}"})))
    body += data(chunk(choice(0, "function_call"))) + DONE
    assert called(body) == [("made-up", "f", "{}")]


def test_counts_after_the_end_are_no_running_counts() -> None:
    """A running count is one that comes before the last choice ended."""
    body = data(delta("a", usage=usage(3, 1))) + data(chunk(choice(0, "stop"), usage=usage(3, 2)))
    events = one(body + data(chunk(usage=usage(3, 2))) + DONE)
    assert [e for e in events if isinstance(e, UsageUpdate)] == [UsageUpdate(3, 1)]


@pytest.mark.parametrize(
    ("document", "read"),
    [
        (None, None),
        ({}, None),
        ([], None),
        ({"prompt_tokens": True, "completion_tokens": "one"}, None),
        ({"prompt_tokens": "20", "completion_tokens": "-1"}, Usage(20, -1)),
        ({"prompt_tokens": "9" * 5000, "completion_tokens": 1}, HalfUsage(None, 1)),
        ({"prompt_tokens": 1}, HalfUsage(1, None)),
        ({"prompt_tokens": 1, "completion_tokens": None}, HalfUsage(1, None)),
        ({"prompt_tokens": 1, "completion_tokens": 2.5}, HalfUsage(1, None)),
        ({"prompt_tokens": True, "completion_tokens": 1}, HalfUsage(None, 1)),
        ({"prompt_tokens": 1.0, "completion_tokens": 2.0}, Usage(1, 2)),
        ({"input_tokens": 1, "output_tokens": 2}, Usage(1, 2)),
        (usage(1, 2), Usage(1, 2)),
        (usage(-1, 2), Usage(-1, 2)),
        (usage(1, 2, prompt_tokens_details=[]), Usage(1, 2)),
        (usage(1, 2, prompt_tokens_details={"cached_tokens": 0}), Usage(1, 2, cached_tokens=0)),
        (usage(9, 2, prompt_token_details={"cached_tokens": 7}), Usage(9, 2, cached_tokens=7)),
        (usage(9, 2, prompt_token_details={}, num_cached_tokens=7), Usage(9, 2, cached_tokens=7)),
        (
            usage(9, 2, prompt_tokens_details={}, input_tokens_details={"cached_tokens": 7}),
            Usage(9, 2, cached_tokens=7),
        ),
        (
            usage(9, 2, prompt_tokens_details={"cache_creation_input_tokens": 7}),
            Usage(9, 2, cache_write_tokens=7),
        ),
        (
            usage(9, 2, prompt_tokens_details={"cache_creation_tokens": 7}),
            Usage(9, 2, cache_write_tokens=7),
        ),
        (usage(9, 8, reasoning_tokens=3), Usage(9, 8, reasoning_tokens=3)),
        (usage(9, 8, reasoning_tokens=95), Usage(9, 103, reasoning_tokens=95)),
        (
            usage(9, 8, completion_tokens_details={"reasoning_tokens": 3}),
            Usage(9, 8, reasoning_tokens=3),
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 8,
                "total_tokens": 20,
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(9, 11, reasoning_tokens=3),
        ),
        (
            {
                "prompt_tokens": 28,
                "completion_tokens": 9,
                "total_tokens": 37,
                "completion_tokens_details": {"reasoning_tokens": 69},
            },
            Usage(28, 78, reasoning_tokens=69),
        ),
    ],
)
def test_usage_is_read_or_unknown(document: Any, read: Usage | HalfUsage | None) -> None:
    """What is counted is kept; reasoning apart, by the total or as it is more, is added."""
    assert read_usage(document) == read


@pytest.mark.parametrize(
    ("report", "kind", "status"),
    [
        ("overloaded", UpstreamFailed, None),
        ({"message": "no", "code": 429}, RateLimited, 429),
        ({"message": "no", "code": 400}, RequestRejected, 400),
        ({"message": "no", "code": "content_filter"}, ContentFiltered, None),
        ({"message": "no", "code": "context_length_exceeded"}, ContextLengthExceeded, None),
        ({"message": "context length is 5", "code": 400}, ContextLengthExceeded, 400),
        ({"message": None, "code": None}, UpstreamFailed, None),
        ({"code": 200}, UpstreamFailed, None),
        ({"code": True}, UpstreamFailed, None),
        (["no"], UpstreamFailed, None),
    ],
)
def test_an_error_report_is_classified(
    report: Any, kind: type[BackendError], status: int | None
) -> None:
    """As a status would be, and never without words."""
    error = stream_error(report)
    assert type(error) is kind
    assert error.upstream_status == status
    assert error.message


def test_an_error_beside_choices_is_an_error() -> None:
    """Error, choices and usage in one chunk, then an end marker: still no answer."""
    report = chunk(choice(content=""), usage=usage(4, 1), error={"code": 400, "message": "limit"})
    events, failure = decode(data(delta("half")) + data(report) + DONE)
    assert isinstance(failure, RequestRejected)
    assert events[-1] == TextDelta(0, "half")


def test_an_error_says_more_than_the_reason_beside_it() -> None:
    """OpenRouter ends the choice with ``error`` in the chunk that tells why."""
    report = chunk(choice(0, "error", content="b"), error={"code": 429, "message": "slow down"})
    events, failure = decode(data(delta("a")) + data(report))
    assert (type(failure), str(failure)) == (RateLimited, "slow down")
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["a", "b"]


@pytest.mark.parametrize("reason", ["error", None])
def test_an_error_may_stand_in_its_choice(reason: str | None) -> None:
    """Streamed or whole; what was said beside it was said before."""
    broken = {"error": {"code": 503, "message": "idle"}, "finish_reason": reason, "index": 0}
    events, failure = decode(data(chunk(broken | {"delta": {"content": "a"}})) + DONE)
    assert (type(failure), str(failure)) == (UpstreamFailed, "idle")
    assert failure.upstream_status == 503
    assert events[-1] == TextDelta(0, "a")
    whole = {"choices": [broken | {"message": {"content": "a"}}]}
    assert str(decode(json.dumps(whole).encode())[1]) == "idle"


@given(st.lists(st.integers(0, 4000), max_size=10))
def test_what_came_before_an_error_is_the_same_however_the_reads_are_cut(cuts: list[int]) -> None:
    """Two equal answers cost the same and fail the same."""
    body = b"".join(answer("a", "b", "c")[:3]) + data({"error": {"message": "x", "code": 503}})
    whole, broke = decode(body)
    events, failure = decode(*split(body, cuts))
    assert events == whole
    assert [e.text for e in events if isinstance(e, TextDelta)] == ["a", "b", "c"]
    assert type(failure) is type(broke) is UpstreamFailed


def test_chunks_without_an_id_or_a_choice_are_read() -> None:
    """Filter results only, empty ids, padding nobody asked for: the names come later."""
    first = {"id": "", "model": "", "choices": [], "prompt_filter_results": [], "p": "abc"}
    events = one(data(first) + data({"choices": None}) + b"".join(answer("a")))
    assert events[0] == ResponseStart("up-1", "up-model")
    assert json.dumps(msgspec.to_builtins(events[1])).count('"a"') == 1


def test_a_character_cut_into_two_chunks_takes_nothing_else_with_it() -> None:
    """Each half is unknown; what stands beside it is kept, and a whole pair stays whole."""
    pieces = [rb'"a\ud83d"', rb'"\ude00b"', rb'"\ud83d\ude00"', rb'"\\ud83d"']
    body = b"".join(
        b'data: {"choices":[{"index":0,"delta":{"content":' + piece + b"}}]}\n\n"
        for piece in pieces
    )
    events, failure = decode(body + data(chunk(choice(0, "stop"))) + DONE)
    assert failure is None
    said = [event.text for event in events if isinstance(event, TextDelta)]
    assert said == ["a\ufffd", "\ufffdb", "\N{GRINNING FACE}", "\\ud83d"]
    assert isinstance(events[-1], Finish)
    assert events[-1].dropped_events == 0
