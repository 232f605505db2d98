"""The child process that tries a chat template out: renders probe conversations within limits, then exits with 0.

Started by template.py as a plain script in isolated mode with an empty environment: it imports nothing of this
repository and not transformers, whose import takes seconds. The names that a template may use are those of
transformers' sandbox. A template that raises is none of its business: that is told by the first real rendering.
"""

import json
import resource
import sys
from datetime import datetime
from typing import Any

import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

TOO_LONG, TOO_BIG = 3, 4  # exit statuses


class Generation(jinja2.ext.Extension):
    """{% generation %} as a block that writes what is in it."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    def _written(self, caller: Any) -> Any:
        return caller()


def fail(message: str) -> None:
    raise jinja2.TemplateError(message)


def probes() -> list[list[dict[str, Any]]]:
    """A question, a conversation, a long one of long messages, and one with a tool that is called."""
    ask = {"role": "user", "content": "Which way is north?"}
    answer = {"role": "assistant", "content": "That way, up."}
    long = [{"role": m["role"], "content": m["content"] + " word" * 1000} for m in (ask, answer)]
    call = {"id": "call12345", "type": "function", "function": {"name": "look", "arguments": {"where": "up"}}}
    used: list[dict[str, Any]] = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    used.append({"role": "tool", "content": "A star."})
    return [[ask], [{"role": "system", "content": "Be brief."}, ask, answer], [*long * 8, ask], [ask, *used, answer]]


def functions(messages: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """What may be called in a probe; None where nothing is."""
    where = {"type": "object", "properties": {"where": {"type": "string"}}, "required": ["where"]}
    look = {"name": "look", "description": "Look somewhere.", "parameters": where}
    return [{"type": "function", "function": look}] if any("tool_calls" in m for m in messages) else None


def main() -> int:
    """Render all probes. The limits end a template that eats time (SIGXCPU) or memory."""
    given = json.load(sys.stdin)
    for kind, limit in ((resource.RLIMIT_CPU, given["seconds"]), (resource.RLIMIT_AS, given["memory_mb"] << 20)):
        resource.setrlimit(kind, (limit, limit))
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(kind, (0, 0))
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = json.dumps
    environment.globals["raise_exception"] = fail
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        template = environment.from_string(given["template"])
    except MemoryError:
        return TOO_BIG
    except Exception:
        return 0
    for messages in probes():
        for prompt in (False, True):
            written = 0
            try:
                names = {"messages": messages, "documents": None, "add_generation_prompt": prompt}
                names["tools"] = functions(messages)
                for part in template.generate(**names, **given["tokens"]):
                    written += len(part)
                    if written > given["characters"]:
                        return TOO_LONG
            except MemoryError:
                return TOO_BIG
            except Exception:
                continue
    return 0


if __name__ == "__main__":
    sys.exit(main())
