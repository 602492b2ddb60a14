import pytest

from mythos.account.peak import peak_flops


@pytest.mark.parametrize(
    ("name", "bf16", "fp32"),
    [
        ("NVIDIA H100 80GB HBM3", 989, 67),
        ("NVIDIA H100 PCIe", 756, 51),
        ("NVIDIA H200", 989, 67),
        ("NVIDIA H20", 148, 44),
        ("NVIDIA A100-SXM4-80GB", 312, 19.5),
        ("NVIDIA B200", 2250, 75),
        ("NVIDIA GeForce RTX 4090", 165.2, 82.6),
    ],
)
def test_a_device_is_found_by_the_words_of_its_name(name: str, bf16: float, fp32: float) -> None:
    assert peak_flops(name, "bf16") == peak_flops(name, "bf16_weights") == bf16 * 1e12
    assert peak_flops(name, "fp32") == fp32 * 1e12


@pytest.mark.parametrize("name", ["NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA GeForce RTX 4090 Laptop GPU", "Tesla T4"])
def test_a_part_of_a_device_and_an_unknown_one_have_no_peak(name: str) -> None:
    assert peak_flops(name, "bf16") is None
