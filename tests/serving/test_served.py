"""The real engine behind the real server: the models that ship with this repository, asked over HTTP."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import openai

from node.engine import Engine
from node.serving.ask import ask
from node.serving.daemon import Server


def test_a_language_model_answers_a_stock_client(
    site: Any, open_server: Callable[[], Server], language: Engine
) -> None:
    """Whole and in pieces, drawn with a seed: the same text, the same fingerprint."""
    site.engine = language
    server = open_server()
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client:
        asked: Any = {"model": "parrot", "prompt": "The credit note", "max_tokens": 12, "seed": 4}
        whole = client.completions.create(**asked)
        pieces = list(client.completions.create(**asked, stream=True))
        assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == whole.choices[0].text
        [told] = [piece.model_extra["candor"] for piece in pieces if "candor" in (piece.model_extra or {})]
        assert whole.model_extra is not None
        assert told == whole.model_extra["candor"]
        assert len(base64.b64decode(told["fingerprint"])) > 16
        said: Any = [{"role": "user", "content": "risky?"}]
        assert client.chat.completions.create(model="parrot", messages=said, max_tokens=4).choices[0].message.content
    assert server.log.size == 3
    assert ask(server.url, "greedy", max_tokens=3, temperature=0.0).receipt
