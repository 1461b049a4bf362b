"""Tools of agent frameworks stay what they are under every policy: real packages, scripted models, no network.

The functions are in `langchain_tools.py` and `pydantic_ai_tools.py`, which only these tests import, so that a run
without the `frameworks` group needs neither package.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

import scalekit

pytestmark = pytest.mark.frameworks

Function = Callable[..., Any]
DECORATIONS: dict[str, Callable[[tuple[str, ...]], Callable[[Function], Function]]] = {
    "cache": lambda ignore: scalekit.cache(ttl="1h", ignore=ignore),
    "limit": lambda ignore: scalekit.limit(concurrency=2),
    "retry": lambda ignore: scalekit.retry(attempts=2),
    "stack": lambda ignore: scalekit.stack(
        scalekit.cache(ttl="1h", ignore=ignore), scalekit.retry(attempts=2), scalekit.limit(concurrency=2)
    ),
}
LANGCHAIN = ["forecast", "forecast_async", "plan", "quoted", "book", "book_async"]
PYDANTIC_AI = ["price", "stock", "order", "order_async"]


@pytest.fixture(params=sorted(DECORATIONS))
def decoration(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def langchain() -> ModuleType:
    module = importlib.import_module("frameworks.langchain_tools")
    module.runs.clear()
    return module


@pytest.fixture
def pydantic_ai() -> ModuleType:
    module = importlib.import_module("frameworks.pydantic_ai_tools")
    module.runs.clear()
    return module


def decorated(module: ModuleType, name: str, decoration: str) -> Function:
    return DECORATIONS[decoration](module.INJECTED.get(name, ()))(getattr(module, name))


def graph(module: ModuleType, function: Function) -> Any:
    """A graph of one node that calls the tool as the model asked."""
    from langchain_core.tools import tool
    from langgraph.graph import END, START, StateGraph
    from langgraph.prebuilt import ToolNode

    builder = StateGraph(module.State)
    builder.add_node("tools", ToolNode([tool(function)], handle_tool_errors=True))
    builder.add_edge(START, "tools")
    builder.add_edge("tools", END)
    return builder.compile()


def calls(name: str, *arguments: dict[str, Any]) -> dict[str, Any]:
    """The state of a conversation in which the model has just asked for these tool calls."""
    from langchain_core.messages import AIMessage

    wanted = [{"name": name, "args": args, "id": f"call {n}", "type": "tool_call"} for n, args in enumerate(arguments)]
    return {"messages": [AIMessage("", tool_calls=wanted)], "user": "ada"}


def answers(app: Any, state: dict[str, Any], asynchronous: bool) -> list[tuple[str, str, str]]:
    config = {"configurable": {"currency": "NOK"}}
    done = asyncio.run(app.ainvoke(state, config)) if asynchronous else app.invoke(state, config)
    return [(message.name, message.status, message.content) for message in done["messages"][1:]]


@pytest.mark.parametrize("name", LANGCHAIN)
def test_langchain_shows_the_model_the_same_tool(langchain: ModuleType, decoration: str, name: str) -> None:
    """Name, description and JSON schema are those of the undecorated function, injected arguments hidden as before."""
    from langchain_core.tools import StructuredTool, tool
    from langchain_core.utils.function_calling import convert_to_openai_tool

    plain = tool(getattr(langchain, name))
    wrapped = tool(decorated(langchain, name, decoration))
    assert (wrapped.name, wrapped.description, wrapped.args) == (plain.name, plain.description, plain.args)
    assert wrapped.get_input_jsonschema() == plain.get_input_jsonschema()
    assert convert_to_openai_tool(wrapped) == convert_to_openai_tool(plain)
    assert isinstance(wrapped, StructuredTool)
    assert (wrapped.func is None) is inspect.iscoroutinefunction(getattr(langchain, name))


def test_langchain_reads_the_same_docstring(langchain: ModuleType, decoration: str) -> None:
    """Descriptions of arguments that LangChain parses from the docstring survive."""
    from langchain_core.tools import StructuredTool

    function = decorated(langchain, "forecast", decoration)
    plain = StructuredTool.from_function(langchain.forecast, parse_docstring=True)
    wrapped = StructuredTool.from_function(function, parse_docstring=True)
    assert wrapped.get_input_jsonschema() == plain.get_input_jsonschema()
    assert "of temperatures" in str(wrapped.args)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["invoke", "ainvoke"])
@pytest.mark.parametrize("name", [*LANGCHAIN, "broken", "broken_async"])
def test_a_langgraph_tool_behaves_as_before(
    langchain: ModuleType, decoration: str, name: str, asynchronous: bool
) -> None:
    """The graph gets the same messages, also for an error of the tool; only a cache saves the second run."""
    if name.endswith("_async"):
        asynchronous = True
    state = calls(name, langchain.ARGUMENTS[name])
    plain = answers(graph(langchain, getattr(langchain, name)), state, asynchronous)
    assert plain[0][1] == ("error" if name.startswith("broken") else "success")
    langchain.runs.clear()

    app = graph(langchain, decorated(langchain, name, decoration))
    assert answers(app, state, asynchronous) == plain
    assert answers(app, state, asynchronous) == plain
    cached = decoration in ("cache", "stack") and not name.startswith("broken")
    assert langchain.runs == {name: 1 if cached else 2}


def test_langgraph_refuses_the_same_arguments(langchain: ModuleType, decoration: str) -> None:
    """What the model wrote wrongly is told to it as before, and the function is not run."""
    state = calls("forecast", {"city": "Oslo", "days": 99})
    plain = answers(graph(langchain, langchain.forecast), state, False)
    assert plain[0][1] == "error"
    assert answers(graph(langchain, decorated(langchain, "forecast", decoration)), state, False) == plain
    assert not langchain.runs


@pytest.mark.parametrize("asynchronous", [False, True], ids=["invoke", "ainvoke"])
def test_a_limit_holds_in_the_threads_of_langgraph(langchain: ModuleType, asynchronous: bool) -> None:
    """Tool calls that the graph spreads over its own threads meet in one limit and share one flight."""
    running = peak = runs = 0
    lock = threading.Lock()

    @scalekit.cache(ttl="1h")
    @scalekit.limit(concurrency=2)
    def look_up(city: str) -> str:
        """Look a city up."""
        nonlocal running, peak, runs
        with lock:
            running += 1
            runs += 1
            peak = max(peak, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return city.upper()

    cities = ["oslo", "lima", "pune", "kobe"] * 3
    found = answers(graph(langchain, look_up), calls("look_up", *({"city": city} for city in cities)), asynchronous)
    assert [content for _, _, content in found] == [city.upper() for city in cities]
    assert (runs, peak) == (4, 2)


def definitions(module: ModuleType, function: Function) -> list[Any]:
    """The tools that pydantic-ai offers to the model, as the model receives them."""
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
    from pydantic_ai.models.function import AgentInfo, FunctionModel

    offered: list[Any] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        offered.extend(info.function_tools)
        return ModelResponse([TextPart("done")])

    asyncio.run(Agent(FunctionModel(model), deps_type=module.Shop, tools=[function]).run("?", deps=module.Shop("NOK")))
    return offered


def conversation(module: ModuleType, function: Function, register: str) -> list[tuple[str, Any]]:
    """What the model is told when it calls the tool until it succeeds."""
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
    from pydantic_ai.models.function import AgentInfo, FunctionModel

    told: list[tuple[str, Any]] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        last = messages[-1].parts[-1]
        if isinstance(last, ToolReturnPart):
            told.append((last.outcome, last.content))
            if last.outcome == "success":
                return ModelResponse([TextPart("done")])
        return ModelResponse([ToolCallPart(info.function_tools[0].name, module.ARGUMENTS[function.__name__])])

    agent = Agent(
        FunctionModel(model), deps_type=module.Shop, retries=5, tools=[function] if register == "tools" else []
    )
    if register == "decorator":
        (agent.tool if function.__name__ in module.INJECTED else agent.tool_plain)(function)
    asyncio.run(agent.run("?", deps=module.Shop("NOK")))
    return told


@pytest.mark.parametrize("name", [*PYDANTIC_AI, "picky"])
def test_pydantic_ai_shows_the_model_the_same_tool(pydantic_ai: ModuleType, decoration: str, name: str) -> None:
    """Name, description and JSON schema are those of the undecorated function, and `RunContext` is still found."""
    (plain,) = definitions(pydantic_ai, getattr(pydantic_ai, name))
    assert definitions(pydantic_ai, decorated(pydantic_ai, name, decoration)) == [plain]
    assert "ctx" not in plain.parameters_json_schema["properties"]


@pytest.mark.parametrize("register", ["tools", "decorator"])
@pytest.mark.parametrize("name", PYDANTIC_AI)
def test_a_pydantic_ai_tool_behaves_as_before(
    pydantic_ai: ModuleType, decoration: str, name: str, register: str
) -> None:
    """The model is told the same; only a cache saves the second run."""
    plain = conversation(pydantic_ai, getattr(pydantic_ai, name), register)
    pydantic_ai.runs.clear()
    function = decorated(pydantic_ai, name, decoration)
    assert conversation(pydantic_ai, function, register) == plain
    assert conversation(pydantic_ai, function, register) == plain
    assert pydantic_ai.runs == {name: 1 if decoration in ("cache", "stack") else 2}


def test_model_retry_reaches_the_model(pydantic_ai: ModuleType, decoration: str) -> None:
    """`ModelRetry` is a word to the model, not a fault: no policy takes it for one or keeps it."""
    plain = conversation(pydantic_ai, pydantic_ai.picky, "tools")
    assert [outcome for outcome, _ in plain] == ["retried", "retried", "success"]
    pydantic_ai.runs.clear()
    assert conversation(pydantic_ai, decorated(pydantic_ai, "picky", decoration), "tools") == plain
    assert pydantic_ai.runs == {"picky": 3}


@pytest.mark.parametrize("name", PYDANTIC_AI)
def test_arguments_that_a_model_makes_up_from_the_schema_fit(
    pydantic_ai: ModuleType, decoration: str, name: str
) -> None:
    """pydantic-ai's own TestModel calls the tool from its schema alone and gets the same answer."""
    from pydantic_ai import Agent
    from pydantic_ai.models.test import TestModel

    def output(function: Function) -> str:
        agent = Agent(TestModel(), deps_type=pydantic_ai.Shop, tools=[function])
        return asyncio.run(agent.run("?", deps=pydantic_ai.Shop("NOK"))).output

    function = decorated(pydantic_ai, name, decoration)
    assert output(function) == output(getattr(pydantic_ai, name))
    assert inspect.iscoroutinefunction(function) is inspect.iscoroutinefunction(getattr(pydantic_ai, name))
