"""What stands in a loop, read from a disassembly."""

import pytest

pytest.importorskip("triton")  # bench.issue compiles with it

from bench import issue
from bench.compile_kernels import Build

CODE = """
        /*0000*/                   LDG.E.U16 R26, desc[UR14][R6.64] ;   /* 0x0000000e061a7981 */
        /*0010*/                   LOP3.LUT R5, R28, 0xf000f, RZ, 0xc0, !PT ;
        /*0020*/                   PRMT R80, R44, 0x5410, R46 ;
        /*0030*/                   HMMA.16816.F32.BF16 R20, R24, R52, R20 ;
        /*0040*/                   LDS.128 R28, [R93+UR7] ;
        /*0050*/              @!P0 BRA 0x10 ;
        /*0060*/               @P1 BRA 0x0 ;
        /*0070*/                   IMAD.MOV.U32 R32, RZ, RZ, R64 ;
        /*0080*/               @P1 BRA 0x70 ;
        /*0090*/                   BRA 0x90 ;
"""


def test_the_smallest_loop_that_multiplies_is_counted():
    found = issue.inner_loop(CODE)
    assert found == {"LOP3": 1, "PRMT": 1, "HMMA": 1, "LDS": 1, "BRA": 1}
    assert issue.half_rate(found) == 4
    with pytest.raises(AssertionError, match="no loop has a matrix product"):
        issue.inner_loop(CODE.replace("HMMA", "FFMA"))


@pytest.mark.parametrize(
    ("codes", "group", "of_a_weight"), [("*i32", 32, 17 / 32), ("*fp8e4nv", 0, 1), ("*bf16", 0, 2)]
)
def test_weights_arrive_at_the_bandwidth_of_all_processors_together(codes, group, of_a_weight):
    sizes = {"BLOCK_N": 128, "BLOCK_K": 64, "GROUP": group}
    build = Build(90, "", "", "", (("codes", codes),), tuple(sizes.items()), (), ())
    cycles = 128 * 64 * of_a_weight / issue.BYTES_A_CYCLE
    assert issue.arrival(build) == pytest.approx(cycles)
