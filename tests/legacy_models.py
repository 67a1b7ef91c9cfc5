"""Small programs in the form of Paddle 2, which Paddle 3 still writes where it is told so before it is imported."""

import os
from pathlib import Path


def save(folder: Path) -> None:
    """Save an ordinary network, one without weights, two detectors, a classifier, and that quantized.

    Each has a folder of its own, with ``inference.pdmodel`` and ``inference.pdiparams``. Call it in a fresh process.
    """
    os.environ.update(FLAGS_enable_pir_api="0")
    import paddle

    paddle.seed(0)
    for name, (net, size) in networks(paddle).items():
        net.eval()
        spec = paddle.static.InputSpec([None, 3, size, size], "float32", name="x")
        paddle.jit.save(net, str(folder / name / "inference"), input_spec=[spec])
    _quantize(paddle, folder / "fp32", folder / "quantized")


def networks(paddle) -> dict:
    """Return the networks and the sizes of their images, by name."""
    nn, functional = paddle.nn, paddle.nn.functional

    class Ordinary(nn.Layer):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2D(3, 4, 3)

        def forward(self, x):
            y = functional.leaky_relu(self.conv(x), 0.2)
            return functional.interpolate(y, scale_factor=2, mode="bilinear")

    class Weightless(nn.Layer):
        def forward(self, x):
            return x * 2

    class Regions(nn.Layer):
        def forward(self, x):
            boxes, counts = paddle.to_tensor([[1.0, 2.0, 9.0, 12.0]]), paddle.to_tensor([1], "int32")
            return paddle.vision.ops.roi_align(x, boxes, counts, 4)

    class Detector(nn.Layer):
        def __init__(self, nms):
            super().__init__()
            self.conv = nn.Conv2D(3, 8, 3, stride=2, padding=1)
            self.boxes, self.scores = nn.Conv2D(8, 4, 1), nn.Conv2D(8, 5, 1)
            self.nms = nms

        def forward(self, x):
            y = functional.relu(self.conv(x))
            box = self.boxes(y).flatten(2).transpose([0, 2, 1])
            center, size = box[:, :, :2] * 16 + 32, functional.relu(box[:, :, 2:]) * 16 + 4
            return self.nms(
                paddle.concat([center - size, center + size], -1), functional.relu6(self.scores(y)).flatten(2) / 6
            )

    def multiclass_nms(boxes, scores):
        helper = paddle.base.layer_helper.LayerHelper("multiclass_nms3")
        kinds = {"Out": "float32", "Index": "int32", "NmsRoisNum": "int32"}
        outputs = {name: helper.create_variable_for_type_inference(kind) for name, kind in kinds.items()}
        helper.append_op(
            type="multiclass_nms3", inputs={"BBoxes": boxes, "Scores": scores}, outputs=outputs,
            attrs={"background_label": -1, "score_threshold": 0.01, "nms_top_k": 5, "nms_threshold": 0.5,
                   "keep_top_k": 30, "nms_eta": 1.0, "normalized": True},
        )  # fmt: skip
        return outputs["Out"], outputs["NmsRoisNum"]

    def matrix_nms(boxes, scores):
        return paddle.vision.ops.matrix_nms(boxes, scores, 0.05, 0.05, 100, 50, background_label=-1)[0]

    class Classifier(nn.Layer):
        def __init__(self):
            super().__init__()
            self.conv0, self.conv1 = nn.Conv2D(3, 16, 3, padding=1), nn.Conv2D(16, 16, 3, padding=1)
            self.linear = nn.Linear(16, 10)

        def forward(self, x):
            first = functional.relu(self.conv0(x))
            second = functional.relu(self.conv1(first) + first)
            return self.linear(functional.adaptive_avg_pool2d(second, 1).flatten(1))

    return {
        "ordinary": (Ordinary(), 16),
        "weightless": (Weightless(), 16),
        "regions": (Regions(), 16), "multiclass_nms": (Detector(multiclass_nms), 32),
        "matrix_nms": (Detector(matrix_nms), 32), "fp32": (Classifier(), 32),
    }  # fmt: skip


def _quantize(paddle, source: Path, target: Path) -> None:
    import numpy as np
    from paddle.static.quantization import PostTrainingQuantization

    images = np.random.default_rng(0).standard_normal((16, 3, 32, 32)).astype(np.float32)

    class Images(paddle.io.IterableDataset):
        def __iter__(self):
            return ((image,) for image in images)

    paddle.enable_static()
    executor = paddle.static.Executor(paddle.CPUPlace())
    program, feeds, _ = paddle.static.load_inference_model(str(source / "inference"), executor)
    x = program.global_block().var(feeds[0])
    quantization = PostTrainingQuantization(
        executor=executor, model_dir=str(source), model_filename="inference.pdmodel",
        params_filename="inference.pdiparams", batch_nums=4, algo="hist", onnx_format=True,
        data_loader=paddle.io.DataLoader(Images(), feed_list=[x], batch_size=4, return_list=False),
        quantizable_op_type=["conv2d", "matmul_v2"], weight_quantize_type="channel_wise_abs_max",
    )  # fmt: skip
    quantization.quantize()
    quantization.save_quantized_model(
        str(target), model_filename="inference.pdmodel", params_filename="inference.pdiparams"
    )
