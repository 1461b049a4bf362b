"""A documentation assistant on LangGraph, written for its author and now used by a whole company.

The search backend takes two requests at a time and now and then drops a connection. The author puts three decorators
under `@tool` and expects that the model is shown the same tool as before, that the graph runs unchanged, and that a
question asked by many costs one request.
"""

import asyncio
from collections import Counter
from uuid import uuid4

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from tenacity import wait_fixed

import scalekit

GROUP = "frameworks"
PAGES = ["retry with backoff", "limit concurrency", "cache a tool", "cache a stream", "batch embeddings"]
requests: Counter[str] = Counter()
running = peak = 0


async def search_docs_plain(query: str, top_k: int = 2) -> list[str]:
    """Search the product documentation.

    Args:
        query: words to look for
        top_k: how many pages to return
    """
    global running, peak
    requests[query] += 1
    running += 1
    peak = max(peak, running)
    try:
        await asyncio.sleep(0.02)
        if requests[query] == 1:
            raise ConnectionResetError("the backend dropped the connection")
        return [page for page in PAGES if set(query.split()) & set(page.split())][:top_k]
    finally:
        running -= 1


production = scalekit.stack(
    scalekit.cache(ttl="10m"),
    scalekit.retry(attempts=3, wait=wait_fixed(0.01)),
    scalekit.limit(concurrency=2),
)
search_docs: BaseTool = tool("search_docs", parse_docstring=True)(production(search_docs_plain))
as_before: BaseTool = tool("search_docs", parse_docstring=True)(search_docs_plain)


def model(state: MessagesState) -> dict[str, list[AIMessage]]:
    """Stands where the chat model stands: asks for the tool, then answers with what it found."""
    last = state["messages"][-1]
    if isinstance(last, ToolMessage):
        return {"messages": [AIMessage(f"See: {last.content}")]}
    call = {"name": "search_docs", "args": {"query": last.text}, "id": uuid4().hex, "type": "tool_call"}
    return {"messages": [AIMessage("", tool_calls=[call])]}


def build() -> CompiledStateGraph[MessagesState]:
    graph = StateGraph(MessagesState)
    graph.add_node("model", model)
    graph.add_node("tools", ToolNode([search_docs]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition, ["tools", END])
    graph.add_edge("tools", "model")
    return graph.compile()


async def crowd() -> list[str]:
    questions = ["retry", "cache", "batch"] * 7
    agent = build()
    states = await asyncio.gather(*(agent.ainvoke({"messages": [HumanMessage(q)]}) for q in questions))
    return [state["messages"][-1].text for state in states]


def main() -> None:
    assert convert_to_openai_tool(search_docs) == convert_to_openai_tool(as_before), "the model sees another tool"
    pages = ['["retry with backoff"]', '["cache a tool", "cache a stream"]', '["batch embeddings"]']
    assert asyncio.run(crowd()) == [f"See: {found}" for found in pages] * 7
    assert requests == {"retry": 2, "cache": 2, "batch": 2}, requests  # one dropped connection each, one answer each
    assert peak <= 2, peak


if __name__ == "__main__":
    main()
