"""What a compiled program sends: counted from its text, turn by turn."""

import pytest

from rfho._programs.collectives import sent_in_a_turn

PROGRAM = """HloModule jit_f, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %c = f32[] add(%a, %b)
}

%inner (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %g = f32[4,8]{1,0} all-gather(%x), replica_groups=[1,8]<=[8], dimensions={0}
}

%called (p: f32[16]) -> f32[16] {
  %r = (f32[16]{0}, bf16[8]{0}) all-reduce(%p, %q), replica_groups={{0,1},{2,3}}, to_apply=%sum
}

%body (p: (s32[], f32[16])) -> (s32[], f32[16]) {
  %w = (s32[], f32[4,8]) while(%t), condition=%c, body=%inner, backend_config={"known_trip_count":{"n":"3"}}
  %k = f32[16]{0} call(%y), to_apply=%called
}

ENTRY %main (p: f32[16]) -> f32[16] {
  %before = f32[1024]{0} all-gather(%x), replica_groups=[1,8]<=[8], dimensions={0}
  %w = (s32[], f32[16]) while(%t), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"7"}}
}
"""


def once(instruction):
    """Bytes that one instruction sends, within a loop."""
    text = f"""
%body (p: f32[16]) -> f32[16] {{
  {instruction}
}}

ENTRY %main (p: f32[16]) -> f32[16] {{
  %w = f32[16] while(%t), condition=%c, body=%body, backend_config={{"known_trip_count":{{"n":"7"}}}}
}}
"""
    return sent_in_a_turn(text, 7)


def test_a_turn_sends_what_its_loops_and_calls_send_and_nothing_from_before():
    gathered, summed = 3 * 7 * 4 * 8 * 4 // 8, 2 * (16 * 4 + 8 * 2) // 2
    assert sent_in_a_turn(PROGRAM, 7) == gathered + summed
    assert sent_in_a_turn(PROGRAM, 3) == 0  # that loop is not an outermost one


@pytest.mark.parametrize(
    ("instruction", "sent"),
    [
        ("%g = u8[80]{0} all-gather(%x), replica_groups=[2,4]<=[8]", 60),
        (
            "%g = u8[80]{0} all-gather(%x), replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}",
            60,
        ),
        ("%g = u8[80]{0} all-gather(%x), replica_groups=mesh['a'=2,'b'=4] {'b':(1)2}", 40),
        ("%g = (u8[10]{0}, u8[80]{0}) all-gather-start(%x), replica_groups=[1,8]<=[8]", 70),
        ("%r = pred[80]{0} all-reduce(%x), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%sum", 140),
        ("%r = bf16[5]{0} reduce-scatter(%x), replica_groups=[1,8]<=[8], to_apply=%sum", 70),
        ("%r = f64[10]{0} all-to-all(%x), replica_groups=[1,8]<=[8]", 70),
        ("%r = c64[10]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}", 80),
        ("%r = f8e4m3fn[80]{0} all-gather(%x), replica_groups=[1,8]<=[8]", 70),
        ("%r = f32[10]{0} add(%all-gather.1, %x)", 0),
    ],
)
def test_each_kind_sends_what_a_ring_of_devices_does(instruction, sent):
    assert once(instruction) == sent
