"""The process that stands for whoever receives an export: plain torch, transformers and peft load it and answer.

Started by certificate.py as a script in isolated mode: it imports nothing of this repository. The request is JSON on
standard input; each line of standard output is a JSON object {"kind": ..., "value": ...}: first `about`, then a
`prompt` per conversation, an `answer` per conversation in any order, and a `scored` per scored example.
"""

import json
import os
import sys
from typing import Any

TOGETHER = 16  # conversations that are answered in a batch


def main() -> None:
    """Answer the conversations greedily, and score the examples."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    request = json.load(sys.stdin)

    import torch
    import transformers

    def tell(kind: str, value: Any) -> None:
        out.write(json.dumps({"kind": kind, "value": value}) + "\n")
        out.flush()

    folder, device = request["model"], "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    if request["form"] == "adapter":
        import peft

        loaded: Any = peft.AutoPeftModelForCausalLM.from_pretrained(folder, dtype=request["dtype"])
    else:
        loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    model = loaded.to(device).eval()
    settings = transformers.GenerationConfig.from_pretrained(folder)
    ends = set(settings.eos_token_id)
    tell("about", {"transformers": transformers.__version__, "torch": torch.__version__, "device": device,
                   "dtype": str(next(model.parameters()).dtype).removeprefix("torch.")})  # fmt: skip

    asked = request["asked"]
    prompts = [
        tokenizer.apply_chat_template(item["messages"], add_generation_prompt=True, return_dict=True)["input_ids"]
        for item in asked
    ]
    for ids in prompts:
        tell("prompt", ids)

    most = request["max_new_tokens"]
    whole = sorted((i for i, item in enumerate(asked) if item["room"] >= most), key=lambda i: len(prompts[i]))
    batches = [(whole[at : at + TOGETHER], most) for at in range(0, len(whole), TOGETHER)]
    batches += [([i], item["room"]) for i, item in enumerate(asked) if item["room"] < most]
    for batch, room in batches:
        padded = tokenizer.pad({"input_ids": [prompts[i] for i in batch]}, return_tensors="pt").to(device)
        drawn = model.generate(**padded, generation_config=settings, max_new_tokens=room)
        for i, row in zip(batch, drawn[:, padded["input_ids"].shape[1] :].tolist(), strict=True):
            end = next((at for at, token in enumerate(row) if token in ends), None)
            tell("answer", {"at": i, "ids": row[:end], "stopped": end is not None})

    for example in request["scored"]:
        ids = torch.tensor([example["ids"]], device=device)
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
        tokens = logits.gather(1, ids[0, 1:, None])[:, 0]
        tell("scored", tokens[example["prompt"] - 1 :].tolist())


if __name__ == "__main__":
    main()
