"""Names that say layer and iteration: ``cell2/t3/hidden_conv``."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import onnx_ir as ir

from ccr_deploy.models.family import node_name, signal_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCOPES_KEY = "pkg.torch.onnx.name_scopes"
"""Where torch's exporter notes the path of modules that a node came from."""


class NameByModulePass(ir.passes.InPlacePass):
    """Names nodes, their outputs and the weights after the modules that they came from.

    A module without sub-modules whose result is one node's output gives that node its own path
    (``cell2/t3/hidden_conv``); every other node is called by path and operator
    (``cell2/t3/cell_state/mul_1``). A node that lost its origin belongs to its first reader's parent; a
    convolution that took in a batch norm keeps the convolution's name.
    A tensor is called like the node that makes it, with the output's number where there are several.
    Weights lose the iteration (``cell2/hidden_conv/weight``): all iterations share them. Names of the
    graph's inputs and outputs stay.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Renames in place; nothing is added, removed or moved."""
        nodes = list(model.graph)
        scopes = _scopes(nodes)
        names = _node_names(nodes, scopes)
        interface = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
        for node in nodes:
            node.name = names[node]
            for number, output in enumerate(node.outputs):
                if id(output) not in interface:
                    output.name = names[node] if len(node.outputs) == 1 else f"{names[node]}/{number}"
        _name_weights(model.graph, names)
        return ir.passes.PassResult(model, modified=True)


def _scopes(nodes: Sequence[ir.Node]) -> Mapping[ir.Node, str]:
    """Every node's module path with slashes."""
    scopes: dict[ir.Node, str] = {}
    for node in reversed(nodes):
        noted = node.metadata_props.get(SCOPES_KEY)
        if noted is None:
            readers = [use.node for output in node.outputs for use in output.uses()]
            scopes[node] = scopes[readers[0]].rpartition("/")[0] if readers else ""
            continue
        path = ast.literal_eval(noted)[-2]
        scopes[node] = "" if path.startswith("_empty") else node_name(path)
        weight = node.inputs[1] if node.op_type == "Conv" else None
        if weight is not None and weight.name is not None and "." in weight.name:
            owner = node_name(weight.name.rpartition(".")[0])
            if signal_of(owner) != signal_of(scopes[node]):
                scopes[node] = owner  # the scope is the batch norm's
    return scopes


def _node_names(nodes: Sequence[ir.Node], scopes: Mapping[ir.Node, str]) -> Mapping[ir.Node, str]:
    members: dict[str, list[ir.Node]] = defaultdict(list)
    for node in nodes:
        members[scopes[node]].append(node)
    parents = {scope[: match.start()] for scope in members for match in re.finditer("/", scope)}
    names: dict[ir.Node, str] = {}
    for scope, inside in members.items():
        results = [node for node in inside if _leaves(node, scope, scopes)]
        leaf = bool(scope) and scope not in parents and len(results) == 1
        count: Counter[str] = Counter()
        for node in inside:
            if leaf and node is results[0]:
                names[node] = scope
                continue
            operator = node.op_type.lower()
            names[node] = "/".join(filter(None, (scope, operator)))
            if count[operator]:
                names[node] += f"_{count[operator]}"
            count[operator] += 1
    return names


def _leaves(node: ir.Node, scope: str, scopes: Mapping[ir.Node, str]) -> bool:
    """Whether something outside the scope reads the node's output."""
    return any(
        output.is_graph_output() or any(scopes[use.node] != scope for use in output.uses())
        for output in node.outputs
    )


def _name_weights(graph: ir.Graph, names: Mapping[ir.Node, str]) -> None:
    """Module weights keep their path without iterations; constants are called after their first reader."""
    taken: set[str] = set()
    for value in list(graph.initializers.values()):
        if value.name is not None and "." in value.name:
            name = signal_of(node_name(value.name))
        else:
            reader = next(iter(value.uses()))
            name = f"{names[reader.node]}/constant_{reader.idx}"
        if name in taken:
            raise ValueError(f"two weights would be called {name}")
        taken.add(name)
        value.name = name
