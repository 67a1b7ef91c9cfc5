"""Models that Paddle 2.6.2 writes, for `legacy_models`, which runs this file in that Paddle's environment."""

import sys
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec
from paddle.vision import models, ops


class Detector(nn.Layer):
    """A head as PicoDet and PP-YOLO have it, with one convolution for a backbone."""

    def __init__(self, nms):
        super().__init__()
        self.conv = nn.Conv2D(3, 8, 3, stride=2, padding=1)
        self.boxes, self.scores = nn.Conv2D(8, 4, 1), nn.Conv2D(8, 5, 1)
        self.nms = nms

    def forward(self, x):
        """Return the outputs."""
        y = nn.functional.relu(self.conv(x))
        box = self.boxes(y).flatten(2).transpose([0, 2, 1])
        center, size = box[:, :, :2] * 16 + 32, nn.functional.relu(box[:, :, 2:]) * 16 + 4
        scores = nn.functional.sigmoid(self.scores(y)).flatten(2)
        return self.nms(paddle.concat([center - size, center + size], -1), scores)


def multiclass_nms3(boxes, scores):
    """Add the operator, for which Paddle has no function."""
    helper = paddle.base.layer_helper.LayerHelper("multiclass_nms3")
    kinds = {"Out": "float32", "Index": "int32", "NmsRoisNum": "int32"}
    outputs = {name: helper.create_variable_for_type_inference(kind) for name, kind in kinds.items()}
    limits = {"score_threshold": 0.3, "nms_top_k": 100, "nms_threshold": 0.5, "keep_top_k": 30, "nms_eta": 1.0}
    helper.append_op(
        type="multiclass_nms3", inputs={"BBoxes": boxes, "Scores": scores}, outputs=outputs,
        attrs={"background_label": -1, "normalized": True, **limits},
    )  # fmt: skip
    return outputs["Out"], outputs["NmsRoisNum"]


def matrix_nms(boxes, scores):
    """Return the detections of Paddle's function."""
    return ops.matrix_nms(boxes, scores, 0.05, 0.05, 100, 50, background_label=-1)[0]


class YoloBox(nn.Layer):
    """The decoding of YOLO's boxes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2D(3, 30, 32, stride=32)

    def forward(self, image, size):
        """Return the outputs."""
        return ops.yolo_box(self.conv(image), size, [10, 13, 16, 30, 33, 23], 5, 0.01, 32)


class Deformable(nn.Layer):
    """A deformable convolution."""

    def __init__(self):
        super().__init__()
        self.offset, self.conv = nn.Conv2D(3, 18, 3), ops.DeformConv2D(3, 8, 3)

    def forward(self, x):
        """Return the outputs."""
        return self.conv(x, self.offset(x))


class Loop(nn.Layer):
    """A linear layer, as often as an input says."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, x, count):
        """Return the outputs."""
        i = paddle.zeros([1], "int64")
        while i < count:
            x = self.linear(x)
            i = i + 1
        return x


class Recurrent(nn.Layer):
    """An LSTM in both directions."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(16, 8, direction="bidirect")

    def forward(self, x):
        """Return the outputs."""
        return self.lstm(x)[0]


def save(folder: Path) -> None:
    """Write all models into a folder."""
    image = InputSpec([None, 3, 64, 64], "float32", "image")
    networks = {
        "resnet18": (models.resnet18(), [image]),
        "mobilenet_v3_small": (models.mobilenet_v3_small(), [image]),
        "shufflenet_v2_x0_25": (models.shufflenet_v2_x0_25(), [image]),
        "multiclass_nms3": (Detector(multiclass_nms3), [image]),
        "matrix_nms": (Detector(matrix_nms), [image]),
        "yolo_box": (YoloBox(), [image, InputSpec([None, 2], "int32", "size")]),
        "deformable": (Deformable(), [image]),
        "while": (Loop(), [InputSpec([None, 16], "float32", "x"), InputSpec([1], "int64", "count")]),
        "lstm": (Recurrent(), [InputSpec([None, 12, 16], "float32", "x")]),
        "transformer": (nn.TransformerEncoderLayer(16, 4, 32), [InputSpec([None, 12, 16], "float32", "x")]),
    }
    for name, (network, inputs) in networks.items():
        network.eval()
        paddle.jit.save(network, str(folder / name), input_spec=inputs)
    for name in ("resnet18", "mobilenet_v3_small"):
        quantize(folder, name)


def quantize(folder: Path, name: str) -> None:
    """Quantize a model after training, on random images."""
    images = np.random.default_rng(0).standard_normal((16, 3, 64, 64)).astype(np.float32)

    class Images(paddle.io.IterableDataset):
        def __iter__(self):
            return ((image,) for image in images)

    paddle.enable_static()
    executor = paddle.static.Executor(paddle.CPUPlace())
    program, feeds, _ = paddle.static.load_inference_model(str(folder / name), executor)
    x = program.global_block().var(feeds[0])
    quantization = paddle.static.quantization.PostTrainingQuantization(
        executor=executor, model_dir=str(folder), model_filename=f"{name}.pdmodel",
        params_filename=f"{name}.pdiparams", batch_nums=4, algo="hist", onnx_format=True,
        data_loader=paddle.io.DataLoader(Images(), feed_list=[x], batch_size=4, return_list=False),
        quantizable_op_type=["conv2d", "depthwise_conv2d", "matmul_v2"], weight_quantize_type="channel_wise_abs_max",
    )  # fmt: skip
    quantization.quantize()
    quantization.save_quantized_model(
        str(folder), model_filename=f"{name}_int8.pdmodel", params_filename=f"{name}_int8.pdiparams"
    )


if __name__ == "__main__":
    paddle.seed(0)
    save(Path(sys.argv[1]))
