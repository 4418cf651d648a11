"""Google's generateContent answers become events, wherever the network cut them."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.collect import ChatAnswer, Collector
from backends.errors import (
    BackendError,
    ContentFiltered,
    ProtocolError,
    StreamTruncated,
    UpstreamFailed,
)
from backends.types import (
    AnnotationDelta,
    ChoiceEnd,
    Finish,
    HalfUsage,
    ImageDelta,
    ReasoningDelta,
    ResponseStart,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)
from backends.wire import sse
from backends.wire.details import GOOGLE
from backends.wire.gemini_stream import GeminiDecoder
from tests.wire.test_sse import split

USAGE = {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10}


def part(*parts: Any, finish: Any = None, index: int | None = None, **more: Any) -> dict[str, Any]:
    """Return a candidate with some parts; a string is a text part."""
    whole = [{"text": p} if isinstance(p, str) else p for p in parts]
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": whole}, **more}
    if finish is not None:
        candidate["finishReason"] = finish
    if index is not None:
        candidate["index"] = index
    return candidate


def chunk(*candidates: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return one chunk of the wire."""
    return {
        "candidates": list(candidates),
        "modelVersion": "gemini-x",
        "responseId": "r-1",
        **more,
    }


def call(name: str | None = None, signature: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return a part that calls a function, or goes on with the call before it."""
    named = {"name": name} if name else {}
    signed = {"thoughtSignature": signature} if signature else {}
    return {"functionCall": {**named, **fields}, **signed}


def as_sse(*documents: Any, line_end: bytes = b"\r\n") -> bytes:
    """Return the documents as server-sent events, with Google's line ends."""
    events = (b"data: " + json.dumps(d, ensure_ascii=False).encode() for d in documents)
    return b"".join(event + 2 * line_end for event in events)


def as_array(*documents: Any) -> bytes:
    """Return the documents as the array that comes without ``alt=sse``."""
    pretty = (json.dumps(d, ensure_ascii=False, indent=2).encode() for d in documents)
    return b"[" + b"\n,\r\n".join(pretty) + b"\n]\n"


def play(*reads: bytes) -> tuple[list[StreamEvent], BackendError | None]:
    """Decode a body that arrives in these reads."""
    ids = itertools.count()
    decoder = GeminiDecoder(lambda: f"made-{next(ids)}")
    events: list[StreamEvent] = []
    for read in reads:
        events += decoder.feed(read)
        if decoder.done or decoder.failure:
            return events, decoder.failure
    events += decoder.end()
    assert decoder.done or decoder.failure
    return events, decoder.failure


def events_of(*documents: Any) -> list[StreamEvent]:
    """Return the events of a good stream."""
    events, failure = play(as_sse(*documents))
    assert failure is None
    return events


def failure_of(*documents: Any) -> tuple[BackendError, list[StreamEvent]]:
    """Return the failure of a stream, and the events before it."""
    events, failure = play(as_sse(*documents))
    assert failure is not None
    return failure, events


def collected(events: list[StreamEvent]) -> ChatAnswer:
    """Return what a stream adds up to."""
    collector = Collector()
    collector.add(events)
    return collector.answer()


def finish_of(events: list[StreamEvent]) -> Finish:
    """Return the last event, a finish."""
    finish = events[-1]
    assert isinstance(finish, Finish)
    return finish


EVERYTHING = (
    chunk(part({"text": "Grüble ", "thought": True}, {"text": "weiter 🤔", "thought": True})),
    chunk(part("Grüße, ", {"executableCode": {"code": "print(1)", "language": "PYTHON"}})),
    chunk(
        part("🌍!", call("add", "c2ln", args={"a": 1}), call("noop")),
        usageMetadata={"promptTokenCount": 7, "totalTokenCount": 7},
    ),
    chunk(part({"text": "", "thoughtSignature": "bGFzdA=="}, finish="STOP"), usageMetadata=USAGE),
)


def test_the_events_of_an_answer_with_everything() -> None:
    """Several parts in a chunk, thoughts, calls with and without arguments, signatures."""
    assert events_of(*EVERYTHING) == [
        ResponseStart("r-1", "gemini-x"),
        ReasoningDelta(
            0,
            "Grüble ",
            [{"type": "reasoning.text", "format": GOOGLE, "index": 0, "text": "Grüble "}],
        ),
        ReasoningDelta(
            0,
            "weiter 🤔",
            [{"type": "reasoning.text", "format": GOOGLE, "index": 0, "text": "weiter 🤔"}],
        ),
        TextDelta(0, "Grüße, "),
        TextDelta(0, "🌍!"),
        ToolCallDelta(0, 0, "made-0", "add", ""),
        ToolCallDelta(0, 0, None, None, '{"a":1}'),
        ReasoningDelta(
            0,
            "",
            [
                {
                    "type": "reasoning.encrypted",
                    "format": GOOGLE,
                    "index": 1,
                    "data": "c2ln",
                    "id": "made-0",
                }
            ],
        ),
        ToolCallDelta(0, 1, "made-1", "noop", ""),
        ToolCallDelta(0, 1, None, None, "{}"),
        ReasoningDelta(
            0,
            "",
            [{"type": "reasoning.encrypted", "format": GOOGLE, "index": 2, "data": "bGFzdA=="}],
        ),
        Finish(
            (ChoiceEnd(0, "tool_calls", "STOP"),),
            Usage(7, 3),
            0,
            {
                "candidates": {
                    "0": {"parts": [{"executableCode": {"code": "print(1)", "language": "PYTHON"}}]}
                },
                "usageMetadata": USAGE,
            },
        ),
    ]


@given(
    cuts=st.lists(st.integers(0, 10**6), max_size=30), line_end=st.sampled_from([b"\n", b"\r\n"])
)
def test_an_event_stream_reads_the_same_however_the_bytes_are_split(
    cuts: list[int], line_end: bytes
) -> None:
    """CRLF and LF, inside characters too."""
    assert play(*split(as_sse(*EVERYTHING, line_end=line_end), cuts)) == play(as_sse(*EVERYTHING))


@given(cuts=st.lists(st.integers(0, 10**6), max_size=30))
def test_an_array_reads_as_the_event_stream_does_however_the_bytes_are_split(
    cuts: list[int],
) -> None:
    """An array that arrives piece by piece is framing, and nothing more."""
    assert play(*split(as_array(*EVERYTHING), cuts)) == play(as_sse(*EVERYTHING))


def test_an_array_may_arrive_byte_by_byte() -> None:
    """Brackets and quotes inside texts are text."""
    said = 'a "quoted" \\ ] } , [ { text\\'
    body = as_array(chunk(part(said)), chunk(part(said, finish="STOP")))
    events, failure = play(*(bytes([byte]) for byte in body))
    assert failure is None
    assert collected(events).choices[0].text == said * 2


def test_events_of_an_array_come_before_its_end() -> None:
    """An element is read when it is whole, not when the array is."""
    decoder = GeminiDecoder()
    body = as_array(chunk(part("eins")), chunk(part("zwei", finish="STOP")))
    events = decoder.feed(body[: body.index(b"zwei")])
    assert TextDelta(0, "eins") in events
    assert not decoder.done


def test_an_array_without_its_closing_bracket_is_truncated() -> None:
    """Even after a finish reason: this framing has an end, and it is missing."""
    body = as_array(chunk(part("half", finish="STOP"))).rstrip(b"\n]")
    events, failure = play(body)
    assert isinstance(failure, StreamTruncated)
    assert TextDelta(0, "half") in events


def test_an_element_of_an_array_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No upstream may fill our memory with an element that never ends."""
    decoder = GeminiDecoder()
    decoder.feed(b'[{"candidates": "')
    piece = b"x" * 65536
    for _ in range(sse.MAX_EVENT_BYTES // len(piece) + 1):
        decoder.feed(piece)
    assert isinstance(decoder.failure, ProtocolError)


def test_a_whole_answer_reads_as_its_stream() -> None:
    """An upstream that answers whole is understood, too."""
    whole = chunk(part("ok", call("f", args={}), finish="STOP"), usageMetadata=USAGE)
    assert play(json.dumps(whole, indent=1).encode()) == play(as_sse(whole))


def test_an_answer_without_a_finish_reason_is_truncated() -> None:
    """The body's end alone says nothing; what was said is kept."""
    error, events = failure_of(chunk(part("half")))
    assert isinstance(error, StreamTruncated)
    assert events[-1] == TextDelta(0, "half")


def test_a_last_chunk_needs_neither_parts_nor_content() -> None:
    """It may hold a finish reason alone, and an answer may be empty."""
    empty = chunk({"content": {"role": "model"}, "finishReason": "MAX_TOKENS", "index": 0})
    none = chunk({"finishReason": "STOP"})
    assert finish_of(events_of(empty)).choices == (ChoiceEnd(0, "length", "MAX_TOKENS"),)
    assert finish_of(events_of(chunk(part("ok")), none)).choices == (ChoiceEnd(0, "stop", "STOP"),)


def test_a_finish_reason_in_every_chunk_ends_the_answer_once() -> None:
    """As old models send it; the last counts, and a call after it is one."""
    events = events_of(chunk(part("a", finish="STOP")), chunk(part("b", finish="MAX_TOKENS")), {})
    assert collected(events).choices[0].text == "ab"
    assert finish_of(events).choices == (ChoiceEnd(0, "length", "MAX_TOKENS"),)
    late = events_of(chunk(part("a", finish="STOP")), chunk(part(call("f"))))
    assert finish_of(late).choices == (ChoiceEnd(0, "tool_calls", "STOP"),)


@pytest.mark.parametrize(
    ("native", "reason", "raw"),
    [
        ("STOP", "stop", "STOP"),
        ("MAX_TOKENS", "length", "MAX_TOKENS"),
        ("SAFETY", "content_filter", "SAFETY"),
        ("RECITATION", "content_filter", "RECITATION"),
        ("MODEL_ARMOR", "content_filter", "MODEL_ARMOR"),
        ("PROHIBITED_CONTENT", "content_filter", "PROHIBITED_CONTENT"),
        (1, "stop", "STOP"),
        (2, "length", "MAX_TOKENS"),
        (3, "content_filter", "SAFETY"),
        (99, "stop", "99"),
    ],
)
def test_a_finish_reason_is_normalized_and_kept(native: Any, reason: Any, raw: str) -> None:
    """Also where enums come as numbers; text before a filter stays."""
    events = events_of(chunk(part("said")), chunk({"finishReason": native}))
    assert finish_of(events).choices == (ChoiceEnd(0, reason, raw),)
    assert TextDelta(0, "said") in events


@pytest.mark.parametrize("native", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "OTHER", 10])
def test_a_finish_reason_that_means_failure_is_one(native: Any) -> None:
    """After the text that came before it."""
    error, events = failure_of(chunk(part("said")), chunk({"finishReason": native}))
    assert isinstance(error, UpstreamFailed)
    assert events[-1] == TextDelta(0, "said")
    explained, _ = failure_of(chunk({"finishReason": native, "finishMessage": "call(x is wrong"}))
    assert explained is not None
    assert explained.message == f"{error.message}: call(x is wrong"


@pytest.mark.parametrize("unset", [0, "FINISH_REASON_UNSPECIFIED", "", None])
def test_an_unset_finish_reason_is_none(unset: Any) -> None:
    """A default value of the enum ends nothing."""
    error, _ = failure_of(chunk(part("half", finish=unset)))
    assert isinstance(error, StreamTruncated)


@pytest.mark.parametrize(
    ("feedback", "words"),
    [
        ({"blockReason": "SAFETY", "blockReasonMessage": "Not this."}, "Not this."),
        ({"blockReason": "OTHER"}, "the prompt was blocked: OTHER"),
        ({"blockReason": 4}, "the prompt was blocked: PROHIBITED_CONTENT"),
    ],
)
def test_a_blocked_prompt_is_a_refused_request(feedback: Any, words: str) -> None:
    """Nothing was generated: it costs nothing, and nobody else is asked."""
    error, _ = failure_of({"promptFeedback": feedback, "usageMetadata": USAGE})
    assert isinstance(error, ContentFiltered)
    assert error.message == words
    assert not error.move_on


def test_a_block_after_content_ends_the_answer_as_filtered() -> None:
    """What was said stays, with the reason as the finish."""
    events = events_of(chunk(part("said")), {"promptFeedback": {"blockReason": "SAFETY"}})
    assert finish_of(events).choices == (ChoiceEnd(0, "content_filter", "SAFETY"),)


def test_feedback_without_a_block_says_nothing() -> None:
    """Ratings of the prompt come with good answers."""
    feedback = {"safetyRatings": [], "blockReason": "BLOCK_REASON_UNSPECIFIED"}
    events = events_of(chunk(part("ok", finish="STOP"), promptFeedback=feedback))
    assert collected(events).choices[0].text == "ok"


def pieces(*places: tuple[str, dict[str, Any]], more: bool = True) -> dict[str, Any]:
    """Return a part that goes on with the arguments of a call."""
    partial = [{"jsonPath": path, **value} for path, value in places]
    return call(partialArgs=partial, **({"willContinue": True} if more else {}))


def test_streamed_arguments_are_put_together_by_their_paths() -> None:
    """Texts go on, names nest, lists grow; an empty call ends it."""
    text = {"stringValue": "Bos", "willContinue": True}
    events = events_of(
        chunk(part(call("book", "c2ln", willContinue=True))),
        chunk(part(pieces(("$.to.city", text)))),
        chunk(part(pieces(("$.to.city", {"stringValue": "ton"}), ("$.n", {"numberValue": 2})))),
        chunk(part(pieces(("$.legs[0].by", {"stringValue": "rail"})))),
        chunk(part(pieces(("$.legs[1]['a \\'b']", {"boolValue": False})))),
        chunk(part(pieces(("$.none", {"nullValue": "NULL_VALUE"}), ("$.nothing", {})))),
        chunk(part(call())),
        chunk(part(call("book", willContinue=True))),
        chunk(part(pieces(('$["x"]', {"numberValue": 0.5}), more=False))),
        chunk(part(call("last", willContinue=True), finish="STOP")),
    )
    [choice] = collected(events).choices
    assert [(one.name, json.loads(one.arguments)) for one in choice.calls] == [
        (
            "book",
            {
                "to": {"city": "Boston"},
                "n": 2,
                "legs": [{"by": "rail"}, {"a 'b": False}],
                "none": None,
            },
        ),
        ("book", {"x": 0.5}),
        ("last", {}),
    ]
    assert [detail.get("id") for detail in choice.details] == ["made-0"]
    assert choice.reason == "tool_calls"


@pytest.mark.parametrize(
    "path", ["", "$", "location", "$.a[5]", "$..a", "$[*]", "$.a[", "$" + ".a" * 100]
)
def test_a_path_that_names_no_place_is_a_protocol_error(path: str) -> None:
    """Neither guessed nor dropped: the call would be another one."""
    error, _ = failure_of(
        chunk(part(call("f", willContinue=True), pieces((path, {"boolValue": True}))))
    )
    assert isinstance(error, ProtocolError)


def test_a_name_below_a_list_is_a_protocol_error() -> None:
    """And an index below an object."""
    for first, second in (("$.a[0]", "$.a.b"), ("$.a.b", "$.a[0]")):
        value = {"boolValue": True}
        error, _ = failure_of(
            chunk(part(call("f", willContinue=True), pieces((first, value), (second, value))))
        )
        assert isinstance(error, ProtocolError)


def test_an_end_of_a_call_without_its_beginning_is_no_call() -> None:
    """An empty call closes what is open; where nothing is, it means nothing."""
    events = events_of(chunk(part("ok", call(), finish="STOP")))
    assert collected(events).choices[0].calls == []


def test_ids_are_kept_and_made_where_there_are_none() -> None:
    """Parallel calls of the same name are two calls; a nameless one gets a name."""
    same = call("f", id="c-1", args={"x": 1})
    events = events_of(
        chunk(part(same, call("f", args={"x": 2}), call(args={"y": 1}), finish="STOP"))
    )
    assert [(one.id, one.name, one.arguments) for one in collected(events).choices[0].calls] == [
        ("c-1", "f", '{"x":1}'),
        ("made-0", "f", '{"x":2}'),
        ("made-1", "tool", '{"y":1}'),
    ]


def test_a_signed_thought_keeps_its_signature_with_its_text() -> None:
    """And the next thought is an entry of its own."""
    events = events_of(
        chunk(part({"text": "a", "thought": True})),
        chunk(part({"text": "b", "thought": True, "thoughtSignature": "c2ln"})),
        chunk(part({"text": "c", "thought": True}, {"thought": True}, "ok", finish="STOP")),
    )
    [choice] = collected(events).choices
    assert (choice.reasoning, choice.text) == ("abc", "ok")
    assert [(d["text"], d.get("signature")) for d in choice.details] == [
        ("ab", "c2ln"),
        ("c", None),
    ]


def test_every_signature_is_an_entry_of_its_own() -> None:
    """Collected, they do not run together: each comes back as it was."""
    signed = ({"text": t, "thoughtSignature": s} for t, s in (("a", "QQ=="), ("b", "Qg==")))
    events = events_of(chunk(part(*signed, finish="STOP")))
    [choice] = collected(events).choices
    assert [detail["data"] for detail in choice.details] == ["QQ==", "Qg=="]


@pytest.mark.parametrize(
    ("document", "usage"),
    [
        (USAGE, Usage(7, 3)),
        ({**USAGE, "thoughtsTokenCount": 5}, Usage(7, 8, reasoning_tokens=5)),
        ({**USAGE, "cachedContentTokenCount": 4}, Usage(7, 3, cached_tokens=4)),
        ({**USAGE, "toolUsePromptTokenCount": 100}, Usage(107, 3)),
        ({"promptTokenCount": 7, "totalTokenCount": 7}, HalfUsage(7, None)),
        ({"trafficType": "ON_DEMAND"}, None),
        ({"promptTokenCount": "7", "candidatesTokenCount": 3}, Usage(7, 3)),
        ({"promptTokenCount": "seven", "candidatesTokenCount": 3}, HalfUsage(None, 3)),
    ],
)
def test_usage_counts_all_that_is_paid_for(document: Any, usage: Usage | HalfUsage | None) -> None:
    """Prompt with what tools put before it and with cached tokens; output with thoughts."""
    events = events_of(chunk(part("ok", finish="STOP"), usageMetadata=document))
    assert finish_of(events).usage == usage


def test_usage_is_cumulative_and_runs() -> None:
    """Each report replaces the one before it."""
    counts = [{"promptTokenCount": 7, "candidatesTokenCount": n} for n in (1, 2, 3)]
    events = events_of(
        chunk(part("a"), usageMetadata=counts[0]),
        chunk(part("b"), usageMetadata=counts[1]),
        chunk(part("c", finish="STOP"), usageMetadata=counts[2]),
    )
    assert [e for e in events if isinstance(e, UsageUpdate)] == [
        UsageUpdate(7, 1),
        UsageUpdate(7, 2),
    ]
    assert finish_of(events).usage == Usage(7, 3)


def test_an_answer_that_is_all_thought_has_a_count_of_output() -> None:
    """Zeros are left out on this wire: no output count, where nothing was said, is none."""
    thought = {"promptTokenCount": 7, "thoughtsTokenCount": 64, "totalTokenCount": 71}
    events = events_of(chunk({"finishReason": "MAX_TOKENS"}, usageMetadata=thought))
    assert finish_of(events).usage == Usage(7, 64, reasoning_tokens=64)
    silent = {"promptTokenCount": 7, "totalTokenCount": 7}
    events = events_of(chunk({"finishReason": "STOP"}, usageMetadata=silent))
    assert finish_of(events).usage == Usage(7, 0)


def test_candidates_are_choices() -> None:
    """By their index, or their place where they have none; each must end."""
    events = events_of(
        chunk(part("a", index=0), part("x", index=1)),
        chunk(part("y", index=1, finish="STOP")),
        chunk(part("b", index=0, finish="MAX_TOKENS")),
    )
    assert [(c.index, c.text, c.reason) for c in collected(events).choices] == [
        (0, "ab", "length"),
        (1, "xy", "stop"),
    ]
    error, _ = failure_of(chunk(part("a", finish="STOP"), part("x")))
    assert isinstance(error, StreamTruncated)


def test_images_come_as_urls_and_drafts_of_them_do_not() -> None:
    """An image in a thought is no answer; sound has no place but the extras."""
    png = {"inlineData": {"mimeType": "image/png", "data": "aW1n"}}
    sound = {"inlineData": {"mimeType": "audio/wav", "data": "d2F2"}}
    events = events_of(
        chunk(
            part(
                {**png, "thought": True}, {**png, "thoughtSignature": "c2ln"}, sound, finish="STOP"
            )
        )
    )
    assert [e for e in events if isinstance(e, ImageDelta)] == [
        ImageDelta(0, "data:image/png;base64,aW1n")
    ]
    extras = finish_of(events).extras
    assert extras is not None
    kept = extras["candidates"]["0"]["parts"]
    assert json.loads(msgspec.json.encode(kept)) == [png, sound]
    assert collected(events).choices[0].details[0]["data"] == "c2ln"


def test_grounding_becomes_citations_once_with_places_in_characters() -> None:
    """Google counts bytes and repeats itself from chunk to chunk."""
    grounding = {
        "webSearchQueries": ["wetter"],
        "groundingChunks": [
            {"web": {"uri": "https://a.example/", "title": "A"}},
            {"web": {"uri": "https://b.example/"}},
            {"retrievedContext": {"uri": "gs://c/d", "title": "C"}},
            {"web": {}},
        ],
        "groundingSupports": [
            {"segment": {"endIndex": 5}, "groundingChunkIndices": [0, 1, 9]},
            {"segment": {"startIndex": 6, "endIndex": 10}, "groundingChunkIndices": [0, 3]},
        ],
    }
    events = events_of(
        chunk(part("Grüß ")),
        chunk(part("Gott", groundingMetadata=grounding)),
        chunk(part(finish="STOP", groundingMetadata=grounding)),
    )

    def cited(url: str, title: str, start: int, end: int) -> dict[str, Any]:
        citation = {"url": url, "title": title, "start_index": start, "end_index": end}
        return {"type": "url_citation", "url_citation": citation}

    assert [e for e in events if isinstance(e, AnnotationDelta)] == [
        AnnotationDelta(
            0,
            [
                cited("https://a.example/", "A", 0, 3),
                cited("https://b.example/", "", 0, 3),
                cited("https://a.example/", "A", 4, 8),
            ],
        ),
        AnnotationDelta(0, [cited("gs://c/d", "C", 0, 0)]),  # no text rests on it, to the end
    ]
    extras = finish_of(events).extras
    assert extras is not None
    assert extras["candidates"]["0"]["groundingMetadata"]["webSearchQueries"] == ["wetter"]


@pytest.mark.parametrize("repeated", [True, False])
def test_a_page_is_cited_once_its_place_is_known(repeated: bool) -> None:
    """Supports may come after the pages, which may be repeated with them."""
    pages = {"groundingChunks": [{"web": {"uri": "https://a.example/"}}]}
    support = {"segment": {"endIndex": 3}, "groundingChunkIndices": [0]}
    more = {**(pages if repeated else {}), "groundingSupports": [support]}
    events = events_of(
        chunk(part("abc", groundingMetadata=pages)),
        chunk(part(groundingMetadata=more)),
        chunk(part("d", finish="STOP")),
    )
    [shown] = [a for e in events if isinstance(e, AnnotationDelta) for a in e.annotations]
    assert (shown["url_citation"]["start_index"], shown["url_citation"]["end_index"]) == (0, 3)


def test_what_is_cited_is_told_before_the_signature_that_ends_the_text() -> None:
    """A client's dialect closes the text's block with it."""
    grounding = {"groundingChunks": [{"web": {"uri": "https://a.example/"}}]}
    signed = {"text": "", "thoughtSignature": "c2ln"}
    for last in ([signed], [{"text": "b", "thoughtSignature": "c2ln"}]):
        events = events_of(
            chunk(part("a")), chunk(part(*last, finish="STOP", groundingMetadata=grounding))
        )
        kinds = [type(e) for e in events if isinstance(e, AnnotationDelta | ReasoningDelta)]
        assert kinds == [AnnotationDelta, ReasoningDelta]
        assert collected(events).choices[0].details[0]["data"] == "c2ln"


@pytest.mark.parametrize("name", ["citationSources", "citations"])
def test_recited_sources_are_citations(name: str) -> None:
    """The two APIs name them differently; one without an address is cited by its title."""
    sources = [{"uri": "https://a.example/", "startIndex": 1, "endIndex": 900}, {"title": "A book"}]
    events = events_of(chunk(part("text", finish="STOP", citationMetadata={name: sources})))
    [[link, book]] = [e.annotations for e in events if isinstance(e, AnnotationDelta)]
    assert (link["url_citation"]["start_index"], link["url_citation"]["end_index"]) == (1, 900)
    assert (book["citation"]["type"], book["citation"]["title"]) == (
        "search_result_location",
        "A book",
    )


def test_a_document_without_an_address_is_cited_by_its_name_and_words() -> None:
    """As those of File Search are."""
    found = {"title": "f.txt", "documentName": "stores/s/documents/d", "text": "its words"}
    grounding = {"groundingChunks": [{"retrievedContext": found}]}
    events = events_of(chunk(part("a", finish="STOP", groundingMetadata=grounding)))
    [[shown]] = [e.annotations for e in events if isinstance(e, AnnotationDelta)]
    assert shown["citation"] | {"title": "f.txt", "cited_text": "its words"} == shown["citation"]
    assert shown["citation"]["source"] == "stores/s/documents/d"
    supports = [{"segment": {"endIndex": n}, "groundingChunkIndices": [0]} for n in (1, 2)]
    placed = {**grounding, "groundingSupports": supports}
    events = events_of(chunk(part("ab", finish="STOP", groundingMetadata=placed)))
    assert [len(e.annotations) for e in events if isinstance(e, AnnotationDelta)] == [1]


def test_log_probabilities_come_in_openais_shape() -> None:
    """Beside the text of their chunk, once."""
    one = {"token": "ü", "tokenId": 5, "logProbability": -0.5}
    result = {"chosenCandidates": [one], "topCandidates": [{"candidates": [one, {"token": "u"}]}]}
    events = events_of(chunk(part("ü", "b", finish="STOP", logprobsResult=result)))
    token = {"token": "ü", "logprob": -0.5, "bytes": [195, 188]}
    other = {"token": "u", "logprob": 0, "bytes": [117]}
    expected = {"content": [{**token, "top_logprobs": [token, other]}]}
    assert [e for e in events if isinstance(e, TextDelta)] == [
        TextDelta(0, "ü", expected),
        TextDelta(0, "b"),
    ]


def test_an_error_in_the_stream_ends_it_after_what_was_said() -> None:
    """As an event of its own, or beside candidates."""
    error = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
    for last in (error, {**chunk(part("b")), **error}):
        failure, events = failure_of(chunk(part("a")), last)
        assert isinstance(failure, UpstreamFailed)
        assert (failure.message, failure.upstream_status) == ("The model is overloaded.", 503)
        assert TextDelta(0, "a") in events


@pytest.mark.parametrize("finish", [None, "STOP"])
def test_an_error_may_break_into_the_stream_as_a_bare_document(finish: str | None) -> None:
    """Pretty-printed, and also after chunks that each had a finish reason."""
    error = {"error": {"code": 499, "message": "The operation was cancelled."}}
    body = as_sse(chunk(part("a", finish=finish))) + json.dumps(error, indent=2).encode() + b"\n"
    events, failure = play(body)
    assert isinstance(failure, UpstreamFailed)
    assert failure.message == "The operation was cancelled."
    assert events[-1] == TextDelta(0, "a")


def test_an_array_may_hold_an_error() -> None:
    """As its only element, or after others."""
    error = {"error": {"code": 400, "message": "The input token count (9) exceeds 8."}}
    for body in (as_array(error), as_array(chunk(part("a")), error)):
        _, failure = play(body)
        assert failure is not None
        assert failure.error_type == "context_length_exceeded"


def test_what_is_no_json_is_counted_and_left_out() -> None:
    """The answer stands all the same."""
    body = (
        as_sse(chunk(part("a")))
        + b"data: {garbage\r\n\r\n"
        + as_sse(chunk(part("b", finish="STOP")))
    )
    events, failure = play(body)
    assert failure is None
    assert finish_of(events).dropped_events == 1
    assert collected(events).choices[0].text == "ab"


@pytest.mark.parametrize(
    "body", [b'data: {"candidates": "none"}\n\n', b'[{"candidates": 5}]', b"[[1]]"]
)
def test_json_of_another_wire_is_a_protocol_error(body: bytes) -> None:
    """It is not dropped: the endpoint is not what it claims to be."""
    _, failure = play(body)
    assert isinstance(failure, ProtocolError)


@given(body=st.binary(max_size=400), cuts=st.lists(st.integers(0, 400), max_size=6))
def test_no_bytes_make_it_crash(body: bytes, cuts: list[int]) -> None:
    """Whatever comes, it ends in one finish or one failure."""
    for start in (b"", b"[", b"data: ", b'[{"candidates":[{"content":{"parts":[{"text":"'):
        events, failure = play(*split(start + body, cuts))
        assert (failure is None) == (bool(events) and isinstance(events[-1], Finish))
