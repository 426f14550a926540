"""Name the nodes of an exported graph by layer and iteration: ``cell2/t3/hidden_conv``."""

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
"""The metadata key under which torch's exporter stores the modules that a node comes from."""


class NameByModulePass(ir.passes.InPlacePass):
    """Name nodes, their outputs and weights after the modules that they come from.

    - If a module has no sub-modules and its result is the output of one node, the node gets the module's
      path: ``cell2/t3/hidden_conv``. Other nodes get path and operator: ``cell2/t3/cell_state/mul_1``.
    - A node without metadata belongs to the parent module of its first reader. A convolution that a batch
      norm was fused into keeps the convolution's name.
    - A tensor has the name of the node that produces it, with the output's number if there are several.
    - Weights have no iteration in their names, because all iterations share them:
      ``cell2/hidden_conv/weight``.
    - The names of the graph's inputs and outputs do not change.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rename in place; nodes are not added, removed or moved."""
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
    """Return each node's module path, with slashes."""
    scopes: dict[ir.Node, str] = {}
    for node in reversed(nodes):  # readers first: a node without metadata takes the scope of its first reader
        noted = node.metadata_props.get(SCOPES_KEY)
        if noted is None:
            readers = [use.node for output in node.outputs for use in output.uses()]
            scopes[node] = scopes[readers[0]].rpartition("/")[0] if readers else ""
            continue
        path = ast.literal_eval(noted)[-2]  # the innermost module: the last entry is the operator
        scopes[node] = "" if path.startswith("_empty") else node_name(path)
        weight = node.inputs[1] if node.op_type == "Conv" else None
        if weight is not None and weight.name is not None and "." in weight.name:
            owner = node_name(weight.name.rpartition(".")[0])
            if signal_of(owner) != signal_of(scopes[node]):
                # The fused convolution has the metadata of the batch norm, and the weight of the convolution.
                scopes[node] = owner
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
    """Return whether the node's output is read outside the scope."""
    return any(
        output.is_graph_output() or any(scopes[use.node] != scope for use in output.uses())
        for output in node.outputs
    )


def _name_weights(graph: ir.Graph, names: Mapping[ir.Node, str]) -> None:
    """Name weights by their module's path without iterations, and constants after their first reader."""
    taken: set[str] = set()
    for value in list(graph.initializers.values()):
        if value.name is not None and "." in value.name:
            name = signal_of(node_name(value.name))
        else:
            reader = next(iter(value.uses()))
            name = f"{names[reader.node]}/constant_{reader.idx}"
        if name in taken:
            raise ValueError(f"two weights have the name {name}")
        taken.add(name)
        value.name = name
