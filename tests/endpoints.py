"""A chat endpoint behind a real HTTP server: what its handlers share."""

import json
from http.server import BaseHTTPRequestHandler
from typing import Any


class ChatHandler(BaseHTTPRequestHandler):
    """Reads a request and answers as an OpenAI-compatible endpoint does."""

    def asked(self) -> dict[str, Any]:
        """The body of the request."""
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return body

    def say(self, text: str) -> None:
        """Answer with a chat completion."""
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100}
        self.reply(200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice],
                         "usage": usage})  # fmt: skip

    def reply(self, status: int, value: Any) -> None:
        """Answer with JSON."""
        self.give(status, json.dumps(value).encode())

    def give(self, status: int, data: bytes, kind: str = "application/json") -> None:
        """Answer with bytes."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass
