"""The prompts of the parity scripts: what people type, and what breaks tokenizers.

PROMPTS are 50 different texts, CORPUS is what the small tokenizer is learned from.
"""

EVERYDAY = [
    "a dog barking", "a cat meowing", "people talking", "a baby crying", "rain on a window", "glass breaking",
    "someone is knocking on a wooden door", "a smoke alarm", "water running from a tap", "footsteps on gravel",
    "the sound of a vacuum cleaner", "a car horn in the distance", "birds singing at dawn", "thunder", "a phone rings twice",
    "an electric guitar plays a solo over drums", "This is a sound of church bells.", "wind", "a kettle whistling",
    "a man speaks while a crowd applauds and then a siren passes by",
]
UNICODE = [
    "ein Hund bellt in der Küche", "le bébé pleure à côté", "犬が吠えている", "собака лает", "كلب ينبح", "노크 소리", "🐕 barking 🔊🔊",
    "cafe\u0301 noise", "café noise", "naïve façade — “quoted” … ‰", "שלום עולם", "คนคุยกัน", "\u200bzero\u200dwidth\ufeff", "𝒻𝓪𝓷𝓬𝔂 math",
    "👩‍👩‍👧‍👦 laughing", "ﬁre ﬂickering", "İstanbul'da yağmur",
]
ODD = [
    "", " ", "   a dog   barking  ", "\ta dog\nbarking\r\n", "A DOG BARKING", "a dog barking.", "don't we'll they've I'm",
    "1234567890 3.14 1,000", "-p --text=x", "<mask> barking", "a dog</s>barking <s> <pad> <unk>", "\\ / | ~ ` ^ {}[]()<>",
]
# The tokens that are kept are 77; the longer ones must be cut, and cut with their end marker.
LONG = ["a dog barks and " * 60 + "then stops"]

PROMPTS = EVERYDAY + UNICODE + ODD + LONG
CORPUS = (EVERYDAY + [text for text in UNICODE if text.isascii()]) * 4
assert len(set(PROMPTS)) == len(PROMPTS) == 50
