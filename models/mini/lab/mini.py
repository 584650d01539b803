"""The method of the bundle `mini` in numpy: the reference that the exported graphs are held against (models/mini/METHOD.md has the formulae).

Class probabilities [N, 521] and MiniLM embeddings [N, 384] become unit vectors [N, D], whose dot product is the cosine that the device calibrates.
"""
import csv
import tomllib
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parents[3] / "crates/claptune/src/mini"


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _columns(name):
    with open(DATA / name, newline="") as file:
        return np.array([row[1:] for row in list(csv.reader(file))[1:]], float)


def captions():
    """[(class index, caption)] in file order."""
    classes = tomllib.loads((DATA / "captions.toml").read_text())["class"]
    return [(index, text) for index, entry in enumerate(classes) for text in entry["captions"]]


class Mini:
    def __init__(self, embed):
        """`embed`: texts -> unit MiniLM embeddings [N, 384]."""
        self.constants = tomllib.loads((DATA / "method.toml").read_text())
        pool, text = self.constants["pool"], self.constants["text"]
        owners, texts = zip(*captions())
        count = np.bincount(owners)
        self.starts = np.concatenate([[0], np.cumsum(count)[:-1]])
        embedded = embed(list(texts)).astype(float)
        self.mean = embedded.mean(0)
        centred = embedded - self.mean
        values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
        scale = (text["whitening_ridge"] * values.max() + np.maximum(values, 0)) ** -0.5
        self.whitening = (vectors * scale) @ vectors.T
        self.keys = self.whiten(embedded)
        self.class_keys = unit(np.add.reduceat(self.keys, self.starts) / count[:, None])
        self.idf = _columns("priors.csv")[:, 0] ** -pool["prior_exponent"]
        self.backgrounds = unit(_columns("background.csv").T ** pool["probability_exponent"] * self.idf)

    def whiten(self, embedding):
        return unit((embedding - self.mean) @ self.whitening)

    def similarities(self, embedding):
        """Best caption of each class [N, 521]."""
        return np.maximum.reduceat(self.whiten(embedding) @ self.keys.T, self.starts, axis=1)

    def audio(self, probabilities):
        c = self.constants["pool"]
        a = np.maximum(probabilities, c["probability_min"]) ** c["probability_exponent"] * self.idf
        size = np.linalg.norm(a, axis=1, keepdims=True)
        excess = np.maximum(a @ self.backgrounds.T - c["background_cosine"] * size, 0) / (1 - c["background_cosine"])
        w, one = c["anchor_weight"], np.ones_like(size)
        parts = [np.sqrt(w) * a, np.sqrt(1 - w) * size * unit(a @ self.class_keys), c["kappa"] * one, 0 * one]
        return unit(np.concatenate([*parts, c["background_weight"] * excess], 1))

    def text(self, embedding):
        c, w = self.constants["text"], self.constants["pool"]["anchor_weight"]
        anchor = np.maximum(self.similarities(embedding), 0) ** c["similarity_exponent"]
        size = np.linalg.norm(anchor, axis=1, keepdims=True)
        null = np.full_like(size, c["null_similarity"] ** c["similarity_exponent"])
        parts = [np.sqrt(w) * anchor, np.sqrt(1 - w) * size * self.whiten(embedding), 0 * size, null]
        return unit(np.concatenate([*parts, np.zeros((len(size), len(self.backgrounds)))], 1))

    def score(self, cosines):
        points = np.array(self.constants["calibration"]["points"])
        return np.interp(cosines, points[:, 0], points[:, 1])
