"""What only one vendor says of an answer is kept, and never taken for the answer."""

from __future__ import annotations

from typing import Any

import pytest

from backends.errors import RequestRejected, UpstreamFailed
from backends.types import (
    AnnotationDelta,
    Finish,
    ImageDelta,
    ResponseStart,
    StreamEvent,
    TextDelta,
    Usage,
)
from backends.wire.openai_chat import StreamDecoder
from tests.upstream import DONE, choice, chunk, data, delta, usage


def events_of(*documents: dict[str, Any], **quirks: Any) -> list[StreamEvent]:
    """Return the events of a stream of these documents."""
    decoder = StreamDecoder(**quirks)
    events = decoder.feed(b"".join(data(document) for document in documents) + DONE)
    assert decoder.failure is None, decoder.failure
    return events


def finish_of(*documents: dict[str, Any], **quirks: Any) -> Finish:
    """Return the end of a stream of these documents."""
    finish = events_of(*documents, **quirks)[-1]
    assert isinstance(finish, Finish)
    return finish


def stop(**more: Any) -> dict[str, Any]:
    """Return a last chunk with fields of its own."""
    return {**chunk(choice(0, "stop")), **more}


def test_padding_and_empty_fields_are_no_extras() -> None:
    """Random padding changes with every chunk."""
    end = stop(obfuscation="abc", p="xyz", system_fingerprint=None, service_tier="", timings={})
    assert finish_of(delta("a"), end).extras is None


def test_fields_of_the_answer_keep_their_names() -> None:
    """The last one counts."""
    end = stop(service_tier="flex", system_fingerprint="fp", kv_transfer_params={"a": 1})
    assert finish_of(delta("a"), end).extras == {
        "service_tier": "flex",
        "system_fingerprint": "fp",
        "kv_transfer_params": {"a": 1},
    }


def test_fields_of_a_choice_stand_under_its_index() -> None:
    """VLLM's stop reason, Azure's filters also beside text, tools that a server ran itself."""
    results = {"hate": {"filtered": False, "severity": "safe"}}
    text = {**choice(content="a"), "content_filter_results": results}
    ran = [{"index": 0, "type": "search", "output": "x"}]
    extras = finish_of(
        {"choices": [], "id": "", "prompt_filter_results": [{"prompt_index": 0}]},
        chunk(text),
        chunk(choice(executed_tools=ran)),
        chunk({**choice(0, "stop"), "stop_reason": 7}),
    ).extras
    assert extras == {
        "prompt_filter_results": [{"prompt_index": 0}],
        "choices": {
            "0": {"content_filter_results": results, "executed_tools": ran, "stop_reason": 7}
        },
    }


def test_counts_without_a_place_and_the_price_are_kept() -> None:
    """In dollars, also where it comes in parts."""
    told = usage(3, 1, num_sources_used=2, cost={"total_cost": 0.5}, prompt_cache_hit_tokens=1)
    finish = finish_of(delta("a"), stop(usage=told))
    assert finish.extras == {"usage": {"num_sources_used": 2}, "cost_usd": 0.5}
    assert finish.usage == Usage(3, 1, cached_tokens=1)


def test_usage_may_stand_elsewhere() -> None:
    """In Groq's own object, or in the choice."""
    told = usage(3, 1)
    assert finish_of(delta("a"), stop(x_groq={"usage": told})).usage == Usage(3, 1)
    inside = chunk({**choice(0, "stop"), "usage": told})
    assert finish_of(delta("a"), inside).usage == Usage(3, 1)


@pytest.mark.parametrize(
    "choices", [[], [choice(content="b")], [choice(0, "error", content="b")], [choice(0, "stop")]]
)
def test_an_error_of_groq_stands_in_its_own_object(choices: list[dict[str, Any]]) -> None:
    """Its SDKs raise it, whatever the chunk says besides; that was said before."""
    decoder = StreamDecoder()
    broken = chunk(*choices, x_groq={"id": "r", "error": "over capacity"})
    events = decoder.feed(data(delta("a")) + data(broken) + DONE)
    assert (type(decoder.failure), str(decoder.failure)) == (UpstreamFailed, "over capacity")
    said = [event.text for event in events if isinstance(event, TextDelta)]
    assert "".join(said) == ("ab" if "b" in str(choices) else "a")


def test_sources_are_told_once() -> None:
    """Perplexity repeats them, and the whole message, in every chunk."""
    sources = {
        "citations": ["https://a.example"],
        "search_results": [{"url": "https://a.example", "title": "A", "date": "2026-01-01"}],
    }
    piece = {**chunk({**choice(content="a"), "message": {"content": "a"}}), **sources}
    done = stop(object="chat.completion.done", **sources)
    events = events_of(piece, done, done)
    cited = {"url": "https://a.example", "title": "A"}
    notes = [{"type": "url_citation", "url_citation": cited}]
    assert [e for e in events if isinstance(e, AnnotationDelta)] == [AnnotationDelta(0, notes)]
    finish = events[-1]
    assert isinstance(finish, Finish)
    assert finish.extras is not None
    assert finish.extras["search_results"] == sources["search_results"]


@pytest.mark.parametrize("name", ["citations", "search_results"])
def test_sources_may_stand_beside_text_only(name: str) -> None:
    """The last chunk need not repeat them; of lists that grow, the longest came last."""
    first, second = ({name: urls} for urls in (["https://a.example"], ["https://a.example"] * 2))
    more = {name: [{"url": "https://b.example"}]}
    events = events_of(delta("a", **more), delta("b", **first), delta("c", **second), stop())
    [notes] = [event for event in events if isinstance(event, AnnotationDelta)]
    assert notes == events[-2]
    assert [note["url_citation"]["url"] for note in notes.annotations] == second[name]


def test_annotations_and_images_of_a_delta_are_content() -> None:
    """As OpenRouter sends them; what is none is left out."""
    note = {"type": "url_citation", "url_citation": {"url": "https://a.example"}}
    images = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}, 5, {}]
    events = events_of(chunk(choice(annotations=[note, 5], images=images)), stop())
    assert AnnotationDelta(0, [note]) in events
    assert ImageDelta(0, "data:image/png;base64,AA==") in events


def test_a_whole_answer_is_read_like_a_stream() -> None:
    """With what its vendor says, after leading blanks; structured output may be an object."""
    message = {"role": "assistant", "content": {"a": 1}, "reasoning_content": "hm"}
    document = stop(object="chat.completion", usage=usage(3, 1), time_info={"total": 1})
    document["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
    decoder = StreamDecoder()
    assert decoder.feed(b"\n   \n" + data(document)[6:]) == []
    start, thought, text, finish = decoder.end()
    assert isinstance(start, ResponseStart)
    assert (getattr(thought, "text", ""), getattr(text, "text", "")) == ("hm", '{"a":1}')
    assert isinstance(finish, Finish)
    assert (finish.usage, finish.extras) == (Usage(3, 1), {"time_info": {"total": 1}})


def test_a_reason_may_be_implied_where_a_vendor_sends_none() -> None:
    """Only by a setting: elsewhere it is a cut answer."""
    assert finish_of(delta("a"), implied_reason="stop").choices[0].reason == "stop"


def test_one_reason_stands_for_all_choices_where_a_vendor_means_it() -> None:
    """Only by a setting, and only with the counts and the end marker of a whole answer."""
    said = data(delta("a")) + data(delta("b", 1)) + data(stop())
    counts = data(chunk(usage=usage(1, 2)))
    for settings, body, whole in (
        ({"one_reason": True}, said + counts + DONE, True),
        ({"one_reason": True}, said + DONE, False),
        ({"one_reason": True}, said + counts, False),
        ({}, said + counts + DONE, False),
    ):
        decoder = StreamDecoder(**settings)
        events = [*decoder.feed(body), *decoder.end()]
        assert (decoder.failure is None) == whole
        if whole:
            assert isinstance(events[-1], Finish)
            ends = [(end.index, end.reason, end.raw_reason) for end in events[-1].choices]
            assert ends == [(0, "stop", "stop"), (1, "stop", "stop")]


def test_an_error_document_without_an_error_field_is_an_error() -> None:
    """Older servers say it by the object's name."""
    decoder = StreamDecoder()
    decoder.feed(data({"object": "error", "message": "no", "code": 400}))
    assert isinstance(decoder.failure, RequestRejected)
