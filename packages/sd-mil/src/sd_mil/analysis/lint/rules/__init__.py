"""The rules: one decorated function each, in the file of its kind."""

from sd_mil.analysis.lint.rule import Rule
from sd_mil.analysis.lint.rules import attention, operations, precision, shapes, versions, weights

#: All of them; ``lint(rules=(*RULES, MINE))`` has more.
RULES: tuple[Rule, ...] = (
    versions.specification_version,
    versions.opset_version,
    versions.operation_version,
    versions.specification_opset,
    versions.int8_ports,
    attention.gpu_attention_rank_3,
    attention.gpu_attention_batch,
    attention.ane_fused_attention,
    weights.ane_table_ios18,
    weights.ane_4_bit_coremltools_9,
    weights.weight_file_size,
    weights.memory,
    shapes.ane_rank,
    shapes.ane_dimension,
    shapes.ane_softmax_size,
    shapes.ane_state_width,
    shapes.flexible_range,
    precision.fp32_program,
    precision.fp32_island,
    precision.needless_cast,
    operations.ane_operation,
)
