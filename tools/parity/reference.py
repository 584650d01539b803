"""What transformers makes of clips and texts: the numbers that clapd must reproduce.

Clips at 48 kHz and texts become unit embeddings, one row each. Nothing is resampled.
One clip and one text at a time, because a clip's embedding depends on its batch (the extractor picks one clip of a
batch to be "longer"). A clip longer than 10 s is cut to its first 10 s, because the extractor would take random crops.
"""
import logging

import numpy as np
import torch
from transformers import ClapFeatureExtractor

from checkpoint import load_tokenizer

RATE = 48_000
CLIP = 480_000
# CLAP was trained on texts of at most 77 tokens; its tokenizer's own limit, 512, is RoBERTa's.
MAX_TOKENS = 77

logging.getLogger("transformers").setLevel(logging.ERROR)


def extract(processor, clips):
    """What the network is given of every clip; slower than a small network."""
    extractor = ClapFeatureExtractor.from_pretrained(processor)
    return [extractor(np.asarray(clip, np.float32)[:CLIP], sampling_rate=RATE, return_tensors="pt") for clip in clips]


@torch.no_grad()
def embed_audio(model, features):
    return torch.stack([model.get_audio_features(**inputs).pooler_output[0] for inputs in features]).double().numpy()


@torch.no_grad()
def embed_texts(model, processor, texts):
    tokenizer = load_tokenizer(processor)
    rows = []
    for text in texts:
        tokens = tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        rows.append(model.get_text_features(tokens.input_ids, tokens.attention_mask).pooler_output[0])
    return torch.stack(rows).double().numpy()


def centred_cosines(rows, reference):
    """The cosines after the reference's mean is taken off both: what all rows share flatters a plain cosine."""
    return cosines(rows - reference.mean(axis=0), reference - reference.mean(axis=0))


def cosines(a, b):
    return (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)).clip(1e-30)
