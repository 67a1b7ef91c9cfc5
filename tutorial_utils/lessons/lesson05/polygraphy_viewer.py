"""Polygraphy's graph viewer for an engine, without a GPU: from the report of its build instead of the engine itself.

``polygraphy inspect model model.plan --visual`` loads the plan, which takes the GPU that it was built for. The viewer
behind the command needs only names and edges. Its modules are not a public API: this was written for Polygraphy 0.53.6.
"""

from pathlib import Path

from tutorial_utils.base.paths import replacing
from tutorial_utils.engine.report import BuildReport, EngineLayer, EngineTensor
from tutorial_utils.inspection import dataflow


def save_engine(report: BuildReport, target_path: str | Path, batch: int) -> Path:
    """Write an engine's graph as a page, as ``--save-visual`` does, and return ``target_path``.

    A browser shows the page where it can load the scripts that it names: see lesson 05.

    Args:
        report: The report of a build with detailed verbosity.
        target_path: Where to write the page.
        batch: Images in one call; it takes the place of every dimension of -1.

    Raises:
        InputError: The report has no layers.
    """
    from polygraphy.logger import G_LOGGER
    from polygraphy.tools.inspect.subtool.model import extractors, graph_data
    from polygraphy.tools.inspect.subtool.model.viewer import ModelViewer

    flow = dataflow.from_report(report, batch)
    tensors = {tensor.name: tensor for kernel in report.kernels for tensor in kernel.inputs + kernel.outputs}

    def described(tensor: EngineTensor) -> graph_data.TensorInfo:
        shape = [batch if size < 0 else size for size in tensor.shape]
        return graph_data.TensorInfo(tensor.name, tensor.dtype, shape, docstring=f"Format: {tensor.format}")

    def node(number: int, kernel: EngineLayer) -> graph_data.NodeInfo:
        return graph_data.NodeInfo(
            node_id=f"node_{number}",
            name=kernel.name,
            op_type=kernel.type,
            inputs=[described(tensor) for tensor in kernel.inputs],
            outputs=[described(tensor) for tensor in kernel.outputs],
            attrs={"ONNX nodes": ", ".join(kernel.onnx_nodes) or "none"},
        )

    nodes = [node(number, kernel) for number, kernel in enumerate(report.kernels)]
    inputs = [described(tensors[name]) for name in flow.inputs]
    outputs = [described(tensors[name]) for name in flow.outputs]
    page = graph_data.GraphData(
        title=f"{report.flavour} {report.version} engine, {len(nodes)} kernels",
        model_type="trt_engine",
        graph_inputs=inputs,
        graph_outputs=outputs,
        nodes=nodes,
        edges=extractors._build_edges(nodes, inputs, outputs),
    )
    target_path = Path(target_path)
    with replacing(target_path) as unfinished, G_LOGGER.verbosity(G_LOGGER.WARNING):
        ModelViewer(page, save_path=str(unfinished)).run()
    return target_path
