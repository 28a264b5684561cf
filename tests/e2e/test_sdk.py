"""What SDK users do, against the demo model on real vLLM engines: the answers are checked."""

import json
import math
from collections.abc import Callable
from typing import cast

import anthropic
import openai
import pytest
from openai.types import ReasoningEffort
from openai.types.chat import (
    ChatCompletionMessage,
    ChatCompletionMessageParam,
    ChatCompletionToolChoiceOptionParam,
    ChatCompletionToolParam,
)

from tests.gateway_process import GatewayProcess, wait_for
from tests.prometheus import lacking, on_dashboard, scrape, series_of_vllm

pytestmark = pytest.mark.e2e

NAME = "My name is demo. That is also what you put into the model field of a request."
TO_TEN = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."
GET_WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The name of the city."}},
            "required": ["city"],
        },
    },
}


def function(name: str, *arguments: str) -> ChatCompletionToolParam:
    """A tool whose arguments are texts."""
    return {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {argument: {"type": "string"} for argument in arguments},
                "required": [*arguments],
            },
        },
    }


FILE_TOOLS = {
    "list_files": function("list_files"),
    "read_file": function("read_file", "path"),
    "write_file": function("write_file", "path", "text"),
}


def user(text: str) -> ChatCompletionMessageParam:
    """A user's message."""
    return {"role": "user", "content": text}


def said_before(message: ChatCompletionMessage) -> ChatCompletionMessageParam:
    """An answer, as a message of the next request."""
    return cast("ChatCompletionMessageParam", message.to_dict(exclude_none=True))


def test_chat(client: openai.OpenAI) -> None:
    """One question, one answer, with usage and the name of the model."""
    answer = client.chat.completions.create(
        model="demo", messages=[user("What is your name?")], temperature=0
    )

    assert answer.choices[0].message.content == NAME
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "demo"
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_streamed_chat_with_usage(client: openai.OpenAI) -> None:
    """The same answer token by token; the last event tells the usage."""
    stream = client.chat.completions.create(
        model="demo",
        temperature=0,
        messages=[user("What is your name?")],
        stream=True,
        stream_options={"include_usage": True},
    )
    events = list(stream)
    pieces = [c.delta.content for event in events for c in event.choices if c.delta.content]

    assert "".join(pieces) == NAME
    assert len(pieces) > 10
    assert events[-1].usage
    assert events[-1].usage.completion_tokens >= len(pieces)


def test_an_answer_depends_on_the_turns_before(client: openai.OpenAI) -> None:
    """A follow-up question makes sense only after its conversation."""
    conversation: list[ChatCompletionMessageParam] = [
        user("Knock knock."),
        {"role": "assistant", "content": "Who is there?"},
        user("Cache."),
    ]

    answer = client.chat.completions.create(model="demo", messages=conversation, temperature=0)

    assert answer.choices[0].message.content == "Cache who?"


def test_a_system_prompt_and_parts(client: openai.OpenAI) -> None:
    """A system prompt, and content as a list of parts."""
    answer = client.chat.completions.create(
        model="demo",
        temperature=0,
        messages=[
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": [{"type": "text", "text": "Say hello."}]},
        ],
    )

    assert answer.choices[0].message.content == "Hello!"


@pytest.mark.parametrize(
    "choice",
    ["auto", "required", {"type": "function", "function": {"name": "get_weather"}}],
    ids=["auto", "required", "named"],
)
def test_a_tool_call(client: openai.OpenAI, choice: ChatCompletionToolChoiceOptionParam) -> None:
    """The model calls the tool it is offered with the city it is asked about."""
    answer = client.chat.completions.create(
        model="demo",
        temperature=0,
        messages=[user("What is the weather in Paris?")],
        tools=[GET_WEATHER],
        tool_choice=choice,
    )

    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}


def test_a_tool_result_becomes_an_answer(client: openai.OpenAI) -> None:
    """The turn after a tool call puts the result into a sentence."""
    messages: list[ChatCompletionMessageParam] = [
        user("What is the weather in Paris?"),
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "call-1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
                }
            ],
        },
        {
            "role": "tool",
            "tool_call_id": "call-1",
            "content": '{"city": "Paris", "temperature": 18, "sky": "sunny"}',
        },
    ]

    answer = client.chat.completions.create(
        model="demo", messages=messages, tools=[GET_WEATHER], temperature=0
    )

    assert answer.choices[0].message.content == "It is 18 degrees and sunny in Paris."


def test_two_tool_calls_at_once(client: openai.OpenAI) -> None:
    """A question about two cities makes two calls, and their results one answer."""
    asked = user("What is the weather in Paris and in Tokyo?")

    called = client.chat.completions.create(
        model="demo", messages=[asked], tools=[GET_WEATHER], temperature=0
    )

    message = called.choices[0].message
    one, other = [call for call in message.tool_calls or [] if call.type == "function"]
    assert json.loads(one.function.arguments) == {"city": "Paris"}
    assert json.loads(other.function.arguments) == {"city": "Tokyo"}

    skies = {one.id: ("Paris", "sunny"), other.id: ("Tokyo", "rainy")}
    results: list[ChatCompletionMessageParam] = [
        {
            "role": "tool",
            "tool_call_id": id_,
            "content": json.dumps({"city": city, "temperature": 18, "sky": sky}),
        }
        for id_, (city, sky) in skies.items()
    ]
    answer = client.chat.completions.create(
        model="demo",
        messages=[asked, said_before(message), *results],
        tools=[GET_WEATHER],
        temperature=0,
    )

    said = "It is 18 degrees and sunny in Paris, and 18 degrees and rainy in Tokyo."
    assert answer.choices[0].message.content == said


@pytest.mark.parametrize("effort", ["none", "low"])
def test_an_agent_s_loop(client: openai.OpenAI, effort: ReasoningEffort) -> None:
    """Three steps, each with a tool whose result the next one needs, and the last words."""
    note = "The owl reads in the old tower."
    files = {"notes.txt": note, "photo.png": ""}

    def written(path: str, text: str) -> str:
        files[path] = text
        return "ok"

    tools: dict[str, Callable[..., str]] = {
        "list_files": lambda: json.dumps([*files]),
        "read_file": lambda path: files[path],
        "write_file": written,
    }
    messages: list[ChatCompletionMessageParam] = [user("Copy my note into summary.txt.")]
    steps = []
    while True:
        answer = client.chat.completions.create(
            model="demo",
            messages=messages,
            tools=[FILE_TOOLS[name] for name in tools],
            temperature=0,
            reasoning_effort=effort,
        )
        message = answer.choices[0].message
        if not message.tool_calls:
            break
        (call,) = message.tool_calls
        assert call.type == "function"
        steps.append(call.function.name)
        result = tools[call.function.name](**json.loads(call.function.arguments))
        messages += [
            said_before(message),
            {"role": "tool", "tool_call_id": call.id, "content": result},
        ]

    assert steps == [*tools]
    assert files["summary.txt"] == note
    assert message.content == f"I have copied your note into summary.txt: {note}"


def test_an_answer_in_a_json_schema(client: openai.OpenAI) -> None:
    """Structured output: only what the schema allows can be said."""
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "kind": {"type": "string"},
            "parameters": {"type": "integer"},
            "layers": {"type": "integer"},
            "open": {"type": "boolean"},
        },
        "required": ["name", "kind", "parameters", "layers", "open"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="demo",
        temperature=0,
        messages=[user("Describe yourself as JSON.")],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "self", "schema": schema, "strict": True},
        },
    )

    described = json.loads(answer.choices[0].message.content or "")
    assert described["name"] == "demo"
    assert described["parameters"] == 2_000_000


def test_a_thought_before_the_answer(client: openai.OpenAI) -> None:
    """A request that asks for reasoning gets a thought, apart from the answer; others get none."""
    asked = user("Think first. What is 17 + 25?")

    thinking = client.chat.completions.create(
        model="demo", messages=[asked], temperature=0, reasoning_effort="low"
    )
    plain = client.chat.completions.create(model="demo", messages=[asked], temperature=0)

    message = thinking.choices[0].message
    assert (message.model_extra or {})["reasoning"].startswith("17 + 25 is 17 + 20 + 5")
    assert message.content == plain.choices[0].message.content == "17 + 25 = 42."
    assert not (plain.choices[0].message.model_extra or {}).get("reasoning")


def test_a_streamed_thought(claude: anthropic.Anthropic) -> None:
    """Anthropic's API streams the thought in a block of its own."""
    with claude.messages.stream(
        model="demo",
        max_tokens=128,
        thinking={"type": "adaptive"},
        output_config={"effort": "low"},
        messages=[{"role": "user", "content": "Think first. Is 91 a prime number?"}],
    ) as stream:
        thought, text = stream.get_final_message().content

    assert thought.type == "thinking"
    assert thought.thinking.endswith("But 7 times 13 is 91.")
    assert text.type == "text"
    assert text.text.startswith("No. 91 = 7")


def test_logprobs(client: openai.OpenAI) -> None:
    """The log-probability of every token, and its rivals."""
    answer = client.chat.completions.create(
        model="demo",
        messages=[user("Say hello.")],
        logprobs=True,
        top_logprobs=2,
        temperature=0,
    )

    logprobs = answer.choices[0].logprobs
    assert logprobs
    assert logprobs.content
    assert "".join(token.token for token in logprobs.content).startswith("Hello!")
    assert all(math.exp(token.logprob) > 0.5 for token in logprobs.content)
    assert all(len(token.top_logprobs) == 2 for token in logprobs.content)


def test_many_choices(client: openai.OpenAI) -> None:
    """`n=20` gives twenty answers; the model knows them so well that sampling does not matter."""
    answer = client.chat.completions.create(
        model="demo", messages=[user("What is your name?")], n=20, seed=1
    )

    said = [choice.message.content for choice in answer.choices]
    assert len(said) == 20
    assert said.count(NAME) >= 18


def test_a_stop_string_ends_the_answer(client: openai.OpenAI) -> None:
    """Nothing from the stop string on is said."""
    answer = client.chat.completions.create(
        model="demo", messages=[user("Count to ten.")], stop=[", 6"], temperature=0
    )

    assert answer.choices[0].message.content == "1, 2, 3, 4, 5"
    assert answer.choices[0].finish_reason == "stop"


def test_a_seed_repeats_a_sampled_answer(client: openai.OpenAI) -> None:
    """The same seed gives the same text even at a high temperature; another seed another one."""

    def sampled(seed: int) -> str:
        text = "Nobody taught it this: zq"
        return (
            client.completions.create(
                model="demo", prompt=text, seed=seed, temperature=2, max_tokens=32
            )
            .choices[0]
            .text
        )

    assert sampled(7) == sampled(7)
    assert sampled(7) != sampled(8)


def test_completions(client: openai.OpenAI) -> None:
    """A text goes on, without a chat template."""
    answer = client.completions.create(
        model="demo", prompt="The capital of France is", max_tokens=8, temperature=0
    )

    assert answer.choices[0].text == " Paris."


def test_streamed_completions(client: openai.OpenAI) -> None:
    """A text goes on, token by token."""
    stream = client.completions.create(
        model="demo", prompt="1, 2, 3,", max_tokens=40, temperature=0, stream=True
    )

    assert "".join(event.choices[0].text for event in stream) == " 4, 5, 6, 7, 8, 9, 10."


def test_embeddings(client: openai.OpenAI) -> None:
    """The embedding model puts a paraphrase nearer than another subject."""
    texts = ["Count to ten.", "Count up to ten.", "What is the weather in Paris?"]
    data = client.embeddings.create(model="demo-embed", input=texts).data
    count, recount, weather = (item.embedding for item in data)

    assert math.isclose(math.hypot(*count), 1.0, rel_tol=1e-3)
    assert likeness(count, recount) > likeness(count, weather)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_embeddings_of_fewer_dimensions(client: openai.OpenAI, size: int) -> None:
    """`dimensions` cuts the embeddings; the paraphrase still is nearer."""
    texts = ["Count to ten.", "Count up to ten.", "What is the weather in Paris?"]
    data = client.embeddings.create(model="demo-embed", input=texts, dimensions=size).data
    count, recount, weather = (item.embedding for item in data)

    assert len(count) == size
    assert math.isclose(math.hypot(*count), 1.0, rel_tol=1e-3)
    assert likeness(count, recount) > likeness(count, weather)


def likeness(one: list[float], other: list[float]) -> float:
    """The cosine of two unit vectors."""
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_responses(client: openai.OpenAI) -> None:
    """OpenAI's Responses API."""
    answer = client.responses.create(
        model="demo", input="Count to ten.", temperature=0, store=False
    )

    assert answer.output_text == TO_TEN
    assert answer.status == "completed"


def test_streamed_responses(client: openai.OpenAI) -> None:
    """OpenAI's Responses API, event by event."""
    stream = client.responses.create(
        model="demo", input="Count to ten.", temperature=0, store=False, stream=True
    )
    deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]

    assert "".join(deltas) == TO_TEN


def test_messages(claude: anthropic.Anthropic) -> None:
    """Anthropic's Messages API."""
    answer = claude.messages.create(
        model="demo",
        max_tokens=64,
        extra_body={"temperature": 0},
        messages=[{"role": "user", "content": "Count to ten."}],
    )

    assert [block.text for block in answer.content if block.type == "text"] == [TO_TEN]
    assert answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens > 10


def test_streamed_messages(claude: anthropic.Anthropic) -> None:
    """Anthropic's Messages API, event by event."""
    with claude.messages.stream(
        model="demo",
        max_tokens=64,
        extra_body={"temperature": 0},
        messages=[{"role": "user", "content": "Count to ten."}],
    ) as stream:
        text = "".join(stream.text_stream)

    assert text == TO_TEN


def test_counting_a_message_s_tokens(claude: anthropic.Anthropic) -> None:
    """Anthropic's token count agrees with what a request is charged."""
    messages: list[anthropic.types.MessageParam] = [{"role": "user", "content": "Count to ten."}]

    counted = claude.messages.count_tokens(model="demo", messages=messages)
    charged = claude.messages.create(model="demo", max_tokens=1, messages=messages)

    assert counted.input_tokens == charged.usage.input_tokens


def test_an_unknown_model(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    """Both SDKs raise what they raise for their own services."""
    with pytest.raises(openai.NotFoundError) as openai_error:
        client.chat.completions.create(model="gpt-9", messages=[user("Hi")])
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(
            model="gpt-9", max_tokens=1, messages=[{"role": "user", "content": "Hi"}]
        )

    assert openai_error.value.code == "model_not_found"
    assert "`gpt-9` does not exist" in openai_error.value.message


def test_an_engine_s_own_refusal_passes_through(client: openai.OpenAI) -> None:
    """What vLLM says of a bad request reaches the client, in OpenAI's shape."""
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="demo", messages=[user("Hi")], temperature=-1)

    assert "temperature" in error.value.message


def test_a_model_asked_for_what_it_does_not_serve(client: openai.OpenAI) -> None:
    """A chat model gives no embeddings, and says what it does serve."""
    with pytest.raises(openai.NotFoundError) as error:
        client.embeddings.create(model="demo", input="Hello")

    assert error.value.code == "unsupported_route"
    assert "/v1/chat/completions" in error.value.message


def test_the_models_are_listed(client: openai.OpenAI, gateway: GatewayProcess) -> None:
    """The list has every model and how it stands."""
    models = {model.id: model.to_dict() for model in client.models.list()}

    applications = gateway.status()["applications"].items()
    running = {name for name, each in applications if each["status"] != "DELETING"}

    assert {"demo", "demo-embed"} <= models.keys()
    assert {"gateway", *models} == running
    assert {model["state"] for model in models.values()} == {"ready"}
    assert client.models.retrieve("demo").id == "demo"


def test_vllm_tells_its_metrics(client: openai.OpenAI, gateway: GatewayProcess) -> None:
    """Ray's agent exports, after a request, what the dashboard asks of vLLM."""
    wanted = on_dashboard(series_of_vllm())
    del wanted["ray_vllm_num_preemptions_total"]  # there from the first one on

    client.chat.completions.create(model="demo", messages=[user("Count to ten.")])

    assert len(wanted) > 4
    wait_for(lambda: not lacking(scrape(gateway.session), wanted))
