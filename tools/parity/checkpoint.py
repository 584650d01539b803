"""Seeded CLAP checkpoints, in every form that claptune imports.

A size, a seed and a form make a folder (or a `.pt` and its processor's folder) as its publisher would have saved
it. Nothing is trained, and nothing is fetched: weights are random, but spread as a trained network's are, so that different clips and texts get clearly
different embeddings and a wrong weight shows; torch's own initialisation would give every clip nearly the same one.
"""
import json
import math
import pathlib
import re

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, ClapConfig, ClapFeatureExtractor, ClapModel

import prompts

# What the dims of a size are. `full` is transformers' default, HTSAT-tiny with RoBERTa-base; `base` is HTSAT-base, as in
# LAION's larger_clap_*; `small` is the least that still has every part: shifted windows, all merges, several heads.
SIZES = {
    "small": {
        "projection_dim": 32,
        "audio_config": {
            "patch_embeds_hidden_size": 8, "depths": [1, 2, 1, 1], "num_attention_heads": [1, 2, 2, 4], "hidden_size": 64,
        },
        "text_config": {
            "vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 64, "max_position_embeddings": 96,
        },
    },
    "full": {},
    "base": {
        "audio_config": {"patch_embeds_hidden_size": 128, "depths": [2, 2, 12, 2], "hidden_size": 1024},
    },
}
# How a checkpoint is stored; `half` holds f16 weights, `old` is a pytorch_model.bin as transformers 4 wrote it, `laion`
# is the training code's own file.
FORMS = ["safetensors", "sharded", "half", "bin", "old", "laion"]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def build(folder, size, seed, fused, form="safetensors"):
    """Writes the checkpoint; returns (what to import, the processor's folder, the reference's model)."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    model = make_model(size, seed, fused)
    extractor = make_extractor(seed, fused)
    if form == "half":
        model = model.half()
    if form == "laion":
        source, processor = folder / "clap.pt", folder / "processor"
        torch.save(as_laion_saves(to_laion(model.state_dict())), source)
        processor.mkdir()
        if size == "small":
            # A .pt says nothing of its heads; at full size RoBERTa's and HTSAT's rules tell, at this one only a
            # configuration, such as lies beside the preprocessor on the hub.
            model.config.save_pretrained(processor)
    else:
        source = processor = folder
        save(model, folder, form)
    extractor.save_pretrained(processor)
    if form == "old":
        path = processor / "preprocessor_config.json"
        # Leftovers in LAION's published preprocessors.
        leftovers = {"chunk_length_s": 10, "n_fft": 1024, "nb_max_frames": 1000, "processor_class": "ClapProcessor"}
        path.write_text(json.dumps(json.loads(path.read_text()) | leftovers, indent=2) + "\n")
    write_tokenizer(processor, model.config.text_config.vocab_size, seed)
    if form == "bin":
        # A checkpoint may also hold only what RoBERTa's tokenizer was published as.
        (processor / "tokenizer.json").unlink()
    return source, processor, model.float()


def save(model, folder, form):
    if form in ("bin", "old"):
        config, state = model.config.to_dict(), model.state_dict()
        if form == "old":
            config, state = to_old(config, state)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        torch.save(state, folder / "pytorch_model.bin")
        return
    # A fifth, so that both towers are cut.
    total = sum(p.numel() * p.element_size() for p in model.parameters())
    model.save_pretrained(folder, max_shard_size=total // 5 if form == "sharded" else "50GB")


def make_config(size, fused):
    dims = SIZES[size]
    audio = {**dims.get("audio_config", {}), "enable_fusion": fused}
    if fused:
        # What the published fused checkpoints say.
        audio |= {"fusion_type": None, "patch_embed_input_channels": 1}
    return ClapConfig(**{**dims, "audio_config": audio, "text_config": dict(dims.get("text_config", {}))})


def make_extractor(seed, fused):
    # Both values are in published preprocessors.
    frequency_min = [0, 50][seed % 2]
    truncation = "fusion" if fused else "rand_trunc"
    return ClapFeatureExtractor(truncation=truncation, frequency_min=frequency_min, frequency_max=14_000)


def make_model(size, seed, fused):
    model = ClapModel(make_config(size, fused)).eval()
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sorted(model.state_dict().items()):
            if tensor.is_floating_point() and "logit_scale" not in name:
                tensor.copy_(draw(name, tensor, source))
    return model


def draw(name, tensor, source):
    """A random tensor spread as a trained one of that name."""
    normal = torch.randn(tensor.shape, generator=source)
    leaf = name.rsplit(".", 1)[-1]
    if "audio_encoder.batch_norm" in name:
        # Log-mel decibels: some -40 on average, give or take 20.
        means = {"running_mean": -40 + 8 * normal, "running_var": 400 * (0.3 * normal).exp()}
        return means.get(leaf, (1 if leaf == "weight" else 0) + 0.2 * normal)
    if leaf == "running_mean":
        return 0.3 * normal
    if leaf == "running_var":
        return (0.5 * normal).exp()
    if leaf == "bias":
        return 0.1 * normal
    if leaf == "relative_position_bias_table":
        return 0.5 * normal
    if "embeddings" in name and tensor.dim() == 2:
        return (1.0 if "word" in name else 0.3) * normal
    if tensor.dim() == 1:
        return 1 + 0.2 * normal  # a norm's weight
    # What attention brings is larger: it must outweigh the first token, which is always the same. Not its logits: sharper
    # attention makes the reference itself differ by 1e-5 between f32 and f64, this way by some 1e-6.
    gain = 1.6 if re.search(r"\.attention\.(self\.value|output)\.", name) else 1.0
    return normal * gain / math.sqrt(tensor[0].numel())


def write_tokenizer(folder, vocab_size, seed):
    """A byte-level BPE like RoBERTa's, learned from the prompts; its ids are spread over the whole vocabulary."""
    trainer = trainers.BpeTrainer(
        vocab_size=min(vocab_size - 1, 1000), special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learned.train_from_iterator(prompts.CORPUS, trainer)
    state = json.loads(learned.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)[len(SPECIAL):]
    # fairseq's own name for the entries that nobody uses.
    tokens += [f"madeupword{i:04}" for i in range(vocab_size - len(SPECIAL) - len(tokens) - 1)]
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed)).tolist()
    vocab = {token: i for i, token in enumerate(SPECIAL + [tokens[i] for i in order] + ["<mask>"])}
    merges = [tuple(merge) for merge in state["merges"]]

    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, continuing_subword_prefix="", end_of_word_suffix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer.add_special_tokens([*SPECIAL, AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    text = json.dumps(vocab, ensure_ascii=False, separators=(",", ":"))
    (folder / "vocab.json").write_text(text, encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "RobertaTokenizer", "model_max_length": 512, "add_prefix_space": False,
                "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>",
                "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")


def load_tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


# What transformers 4 wrote into every configuration besides the model's own keys: the defaults of text generation.
OLD_KEYS = {
    "_name_or_path": "", "add_cross_attention": False, "architectures": None, "bad_words_ids": None,
    "begin_suppress_tokens": None, "chunk_size_feed_forward": 0, "cross_attention_hidden_size": None,
    "decoder_start_token_id": None, "diversity_penalty": 0.0, "do_sample": False, "early_stopping": False,
    "encoder_no_repeat_ngram_size": 0, "exponential_decay_length_penalty": None, "finetuning_task": None,
    "forced_bos_token_id": None, "forced_eos_token_id": None, "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "is_decoder": False, "is_encoder_decoder": False, "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "length_penalty": 1.0,
    "max_length": 20, "min_length": 0, "no_repeat_ngram_size": 0, "num_beam_groups": 1, "num_beams": 1,
    "num_return_sequences": 1, "output_attentions": False, "output_hidden_states": False, "output_scores": False,
    "prefix": None, "problem_type": None, "pruned_heads": {}, "remove_invalid_values": False, "repetition_penalty": 1.0,
    "return_dict": True, "return_dict_in_generate": False, "sep_token_id": None, "suppress_tokens": None,
    "task_specific_params": None, "temperature": 1.0, "tf_legacy_loss": False, "tie_encoder_decoder": False,
    "tie_word_embeddings": True, "tokenizer_class": None, "top_k": 50, "top_p": 1.0, "torch_dtype": None,
    "torchscript": False, "transformers_version": "4.27.0.dev0", "typical_p": 1.0, "use_bfloat16": False,
}


def to_old(config, state):
    """A configuration and weights as transformers 4.27 wrote them: LAION's published checkpoints are that old."""
    audio = {**OLD_KEYS, **config["audio_config"], "enable_patch_fusion": True, "fusion_num_hidden_layers": 2,
             "projection_hidden_size": config["audio_config"]["hidden_size"]}
    text = {**OLD_KEYS, **config["text_config"], "classifier_dropout": None, "position_embedding_type": "absolute",
            "use_cache": True}
    config = {**config, "_commit_hash": None, "audio_config": audio, "text_config": text, "torch_dtype": "float32",
              "transformers_version": None}
    positions = torch.arange(config["text_config"]["max_position_embeddings"])[None]
    return config, state | {"text_model.embeddings.position_ids": positions}


# LAION's names, from transformers'; the reverse of what its conversion of LAION's checkpoints did.
LAION = [
    ("audio_model.audio_encoder.", "audio_branch."), ("text_model.", "text_branch."),
    ("audio_branch.batch_norm.", "audio_branch.bn0."),
    (".attention.self.relative_", ".attn.relative_"), (".layernorm_before.", ".norm1."), (".layernorm_after.", ".norm2."),
    ("_projection.linear1.", "_projection.0."), ("_projection.linear2.", "_projection.2."),
]
LAION_BLOCK = [
    (".attention.output.dense.", ".attn.proj."), (".intermediate.dense.", ".mlp.fc1."), (".output.dense.", ".mlp.fc2."),
]


def laion_name(name):
    for old, new in LAION + (LAION_BLOCK if name.startswith("audio_model") else []):
        name = name.replace(old, new)
    return name


def as_laion_saves(state):
    """What LAION's training saves besides the weights: its optimizer and loss scaler (a small piece of them)."""
    moments = {"step": 7, "exp_avg": torch.zeros(4, 4), "exp_avg_sq": torch.zeros(4, 4)}
    group = {"lr": 1e-4, "betas": (0.9, 0.99), "eps": 1e-6, "weight_decay": 0.0, "params": [0]}
    optimizer = {"state": {0: moments}, "param_groups": [group]}
    scaler = {"scale": 65536.0, "growth_factor": 2.0, "growth_interval": 2000, "_growth_tracker": 0}
    return {"epoch": 45, "name": "clap", "state_dict": state, "optimizer": optimizer, "scaler": scaler}


def to_laion(state):
    """The same weights as LAION's training code saves them: its names behind `module.`, one matrix for query, key and
    value, and what only training and LAION's own front end use."""
    out = {}
    for name, tensor in state.items():
        part = re.fullmatch(r"(audio_model.*)\.attention\.self\.query\.(weight|bias)", name)
        if part:
            three = [state[f"{part[1]}.attention.self.{which}.{part[2]}"] for which in ("query", "key", "value")]
            out[laion_name(part[1]) + ".attn.qkv." + part[2]] = torch.cat(three)
        elif not re.match(r"audio_model.*\.attention\.self\.(key|value)\.", name):
            out[laion_name(name)] = tensor
    # The masks of the shifted windows, which follow from the dims: every other block, where windows are several.
    for name in list(out):
        block = re.fullmatch(r"audio_branch\.layers\.(\d)\.blocks\.\d*[13579]\.(norm1\.weight)", name)
        if block and block[1] != "3":
            out[name.replace(block[2], "attn_mask")] = torch.zeros((8 >> int(block[1])) ** 2, 64, 64)
    width = state["audio_model.audio_encoder.norm.weight"].numel()
    out |= {
        "audio_branch.spectrogram_extractor.stft.conv_real.weight": torch.zeros(513, 1, 1024),
        "audio_branch.spectrogram_extractor.stft.conv_imag.weight": torch.zeros(513, 1, 1024),
        "audio_branch.logmel_extractor.melW": torch.zeros(513, 64),
        "audio_branch.tscam_conv.weight": torch.zeros(527, width, 2, 3),
        "audio_branch.tscam_conv.bias": torch.zeros(527),
        "audio_branch.head.weight": torch.zeros(527, 527),
        "audio_branch.head.bias": torch.zeros(527),
        "text_branch.embeddings.position_ids": torch.arange(514)[None],
    }
    dim = state["text_projection.linear2.weight"].shape[0]
    for tower in ("audio_transform", "text_transform"):
        for layer in (0, 3):
            out[f"{tower}.sequential.{layer}.weight"] = torch.zeros(dim, dim)
            out[f"{tower}.sequential.{layer}.bias"] = torch.zeros(dim)
    return {f"module.{name}": tensor for name, tensor in out.items()}
