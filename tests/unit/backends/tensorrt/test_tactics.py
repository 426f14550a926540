"""The types in the names of TensorRT's kernels."""

from __future__ import annotations

import pytest

from ccr_deploy.backends.tensorrt.tactics import operands_of


@pytest.mark.parametrize(
    ("tactic", "operands"),
    [
        ("sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs", ("int8", "int8")),
        ("sm80_xmma_fprop_implicit_gemm_interleaved_i8f16_i8i32_f32_nchw_vect_c_32kcrs", ("int8", "int8")),
        ("sm80_xmma_fprop_implicit_gemm_interleaved_i8f32_i8i32_f32_nchw_vect_c_32kcrs", ("int8", "int8")),
        ("sm86_xmma_fprop_implicit_gemm_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize64x64", ("fp16", "fp16")),
        ("sm80_xmma_fprop_implicit_gemm_indexed_f16f16_f16f32_f32_nhwckrsc", ("fp16", "fp16")),
        ("sm80_xmma_fprop_implicit_gemm_f16i8_f16f32_f32_nhwckrsc", ("fp16", "fp16")),
        ("sm80_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc", ("bf16", "bf16")),
        ("sm80_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize128x128", ("fp32", "fp32")),
        ("sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc", ("fp32", "fp32")),
        ("sm80_xmma_fprop_implicit_gemm_f32f32_f32f32_f32_nhwckrsc_nhwc_ffma_t1r3s3", ("fp32", "fp32")),
        ("sm89_xmma_fprop_implicit_gemm_e4m3e4m3_e4m3f32_f32_nhwckrsc", ("fp8", "fp8")),
        ("sm80_xmma_gemm_f16f16_f16f16_f16_tn_n_tilesize64x64x64", ("fp16", "fp16")),
        ("ampere_fp32_icudnn_int8x4_128x64_relu_medium_nn_v1", ("int8", "int8")),
        ("turing_int8_i8816cudnn_int8_128x128_ldg16_relu_singleBuffer_small_nt_v1", ("int8", "int8")),
        ("ampere_h16816cudnn_128x128_ldg8_relu_exp_stages_64x3_large_nhwc_tn_v1", ("fp16", "fp16")),
        ("volta_h884cudnn_256x64_ldg8_relu_exp_small_nhwc_tn_v1", ("fp16", "fp16")),
        ("turing_fp16_s1688cudnn_fp16_128x128_ldg8_relu_f2f_exp_small_nhwc_tn_v1", ("fp16", "fp16")),
        ("trt_turing_cutlass_image_network_first_layer_hmma_fprop_f16f16f32_nhwc_nhwc", ("fp16", "fp16")),
        ("sm50_xmma_conv_depthwiseFP32NHWC4", ("fp32", "fp32")),
        ("ampere_scudnn_winograd_128x128_ldg1_ldg4_relu_tile148t_nt_v1", ("fp32", "fp32")),
        ("volta_sgemm_128x64_nn", ("fp32", "fp32")),
        ("__myl_FcCast_0x1f16f16_i8i8_i8i32_", ("unknown", "unknown")),
        ("__myelin_CASK_STUB", ("unknown", "unknown")),
        ("generic_direct_convolution_v3", ("unknown", "unknown")),
        ("", ("unknown", "unknown")),
    ],
)
def test_the_name_of_a_kernel_tells_its_types(tactic: str, operands: tuple[str, str]) -> None:
    assert operands_of(tactic) == operands
