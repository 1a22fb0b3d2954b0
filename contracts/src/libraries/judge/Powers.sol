// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice Powers of two with fractional exponents, from the two tables that everybody uses.
/// @dev SHA-256 of the tables: 01d6f32577f78e37c47ab5e98fbfbe44e1e1e65e834ff0a8b1a7f6d2a90e447f
/// (crates/kernels/src/tables.rs).
library Powers {
    /// round(2^30 * log2(e)).
    int256 internal constant LOG2E_Q30 = 1_549_082_005;

    /// round(2^30 * 2^(-i/256)), then round(2^30 * 2^(-i/65536)), for i in 0..256; 32 bits each.
    bytes private constant TABLES = hex"400000003fd3b2d63fa784573f7b746d3f4f83033f23b0043ef7fb5b3ecc64f33ea0ecb73e7592923e4a566f3e1f3839"
        hex"3df437dd3dc955443d9e905b3d73e90d3d495f453d1ef2f03cf4a3f83cca72493ca05dcf3c7666763c4c8c2a3c22ced6"
        hex"3bf92e673bcfaac83ba643e63b7cf9ac3b53cc083b2abae43b01c62e3ad8edd13ab031ba3a8791d63a5f0e103a36a656"
        hex"3a0e5a9439e62ab739be16ab39961e5d396e41ba394680af391edb2838f7511338cfe25d38a88ef2388156c0385a39b4"
        hex"383337bb380c50c337e584b837bed38837983d213771c16f374b6061372519e436feede636d8dc5436b2e51c368d082b"
        hex"3667457136419cd9361c0e5335f699cc35d13f3335abfe743586d7803561ca42353cd6ab3517fca834f33c2634ce9516"
        hex"34aa076434859301346137d9343cf5db3418ccf733f4bd1a33d0c63433ace833338923053365769b3341e2e2331e67c9"
        hex"32fb054032d7bb3532b4899832917057326e6f62324b86a73228b6173205fda031e35d3231c0d4bc319e642d317c0b76"
        hex"3159ca843137a14931158fb330f395b230d1b33730afe82f308e348c306c983d304b13333029a55c30084ea82fe70f09"
        hex"2fc5e66e2fa4d4c62f83da022f62f6132f4228e82f2172712f00d2a02ee049632ebfd6ad2e9f7a6c2e7f34912e5f050e"
        hex"2e3eebd22e1ee8ce2dfefbf32ddf25312dbf64792d9fb9bc2d8024ea2d60a5f52d413ccd2d21e9632d02aba92ce3838e"
        hex"2cc471052ca573fd2c868c6a2c67ba3a2c48fd602c2a55ce2c0bc3732bed46422bcede2b2bb08b212b924d152b7423f7"
        hex"2b560fbb2b3810502b1a25a92afc4fb82ade8e6d2ac0e1bc2aa349952a85c5ea2a6856ad2a4afbd02a2db5462a1082ff"
        hex"29f364ed29d65b0429b96534299c8370297fb5aa2962fbd5294655e22929c3c3290d456c28f0dacd28d483da28b84085"
        hex"289c10c1287ff47f2863ebb32847f64e282c14442810458727f48a0927d8e1be27bd4c9827a1ca8a27865b86276aff80"
        hex"274fb66a2734803727195cda26fe4c4626e34e6e26c8634626ad8abf2692c4ce26781165265d70772642e1f9262865dc"
        hex"260dfc1425f3a49525d95f5225bf2c3f25a50b4e258afc732570ffa2255714ce253d3bea252374eb2509bfc424f01c68"
        hex"24d68acc24bd0ae224a39c9f248a3ff72470f4dd2457bb45243e932324257c6b240c771123f3830823daa04623c1cebd"
        hex"23a90e6323905f2a2377c108235f33f02346b7d7232e4cb02315f27122fda90d22e5707922cd48a922b53191229d2b27"
        hex"2285355d226d502a22557b81223db757222603a0220e605221f6cd6021df4ac021c7d86621b07646219924572181e28c"
        hex"216ab0da21538f36213c7d9621257bed210e8a3120f7a85720e0d65420ca141c20b361a6209cbee620862bd1206fa85c"
        hex"2059347d2042d028202c7b54201635f5400000003fffd3a43fffa7473fff7aeb3fff4e8f3fff22333ffef5d73ffec97b"
        hex"3ffe9d203ffe70c43ffe44693ffe180e3ffdebb23ffdbf573ffd92fc3ffd66a23ffd3a473ffd0dec3ffce1923ffcb538"
        hex"3ffc88de3ffc5c833ffc302a3ffc03d03ffbd7763ffbab1c3ffb7ec33ffb526a3ffb26103ffaf9b73ffacd5e3ffaa105"
        hex"3ffa74ad3ffa48543ffa1bfc3ff9efa33ff9c34b3ff996f33ff96a9b3ff93e433ff911eb3ff8e5933ff8b93c3ff88ce5"
        hex"3ff8608d3ff834363ff807df3ff7db883ff7af313ff782db3ff756843ff72a2d3ff6fdd73ff6d1813ff6a52b3ff678d5"
        hex"3ff64c7f3ff620293ff5f3d43ff5c77e3ff59b293ff56ed33ff5427e3ff516293ff4e9d43ff4bd803ff4912b3ff464d6"
        hex"3ff438823ff40c2e3ff3dfda3ff3b3863ff387323ff35ade3ff32e8a3ff302363ff2d5e33ff2a9903ff27d3c3ff250e9"
        hex"3ff224963ff1f8443ff1cbf13ff19f9e3ff1734c3ff146f93ff11aa73ff0ee553ff0c2033ff095b13ff0695f3ff03d0e"
        hex"3ff010bc3fefe46b3fefb8193fef8bc83fef5f773fef33263fef06d53feeda853feeae343fee81e43fee55933fee2943"
        hex"3fedfcf33fedd0a33feda4533fed78033fed4bb43fed1f643fecf3153fecc6c63fec9a763fec6e273fec41d93fec158a"
        hex"3febe93b3febbced3feb909e3feb64503feb38023feb0bb43feadf663feab3183fea86ca3fea5a7d3fea2e2f3fea01e2"
        hex"3fe9d5953fe9a9473fe97cfa3fe950ae3fe924613fe8f8143fe8cbc83fe89f7b3fe8732f3fe846e33fe81a973fe7ee4b"
        hex"3fe7c1ff3fe795b43fe769683fe73d1d3fe710d13fe6e4863fe6b83b3fe68bf03fe65fa53fe6335b3fe607103fe5dac6"
        hex"3fe5ae7b3fe582313fe555e73fe5299d3fe4fd533fe4d1093fe4a4c03fe478763fe44c2d3fe41fe43fe3f39a3fe3c751"
        hex"3fe39b093fe36ec03fe342773fe3162f3fe2e9e63fe2bd9e3fe291563fe2650e3fe238c63fe20c7e3fe1e0363fe1b3ef"
        hex"3fe187a73fe15b603fe12f183fe102d13fe0d68a3fe0aa443fe07dfd3fe051b63fe025703fdff9293fdfcce33fdfa09d"
        hex"3fdf74573fdf48113fdf1bcb3fdeef853fdec3403fde96fb3fde6ab53fde3e703fde122b3fdde5e63fddb9a13fdd8d5c"
        hex"3fdd61183fdd34d33fdd088f3fdcdc4b3fdcb0073fdc83c33fdc577f3fdc2b3b3fdbfef83fdbd2b43fdba6713fdb7a2d"
        hex"3fdb4dea3fdb21a73fdaf5643fdac9213fda9cdf3fda709c3fda445a3fda18183fd9ebd53fd9bf933fd993513fd9670f"
        hex"3fd93ace3fd90e8c3fd8e24b3fd8b6093fd889c83fd85d873fd831463fd805053fd7d8c43fd7ac843fd780433fd75403"
        hex"3fd727c33fd6fb823fd6cf423fd6a3033fd676c33fd64a833fd61e433fd5f2043fd5c5c53fd599863fd56d463fd54108"
        hex"3fd514c93fd4e88a3fd4bc4b3fd4900d3fd463cf3fd437903fd40b523fd3df14";

    /// @notice Where the tables lie in memory, for {exp2neg}.
    function load() internal pure returns (uint256 tables) {
        bytes memory words = TABLES;
        assembly ("memory-safe") {
            tables := add(words, 32)
        }
    }

    /// @notice 2^-u in Q<fraction> for u in Fx<16>; fraction is at most 30.
    function exp2neg(uint256 tables, uint256 u, uint256 fraction) internal pure returns (uint256 power) {
        assembly ("memory-safe") {
            let whole := shr(16, u)
            if lt(whole, 40) {
                let upper := shr(224, mload(add(tables, and(shr(6, u), 1020))))
                let lower := shr(224, mload(add(add(tables, 1024), and(shl(2, u), 1020))))
                power := shr(30, add(mul(upper, lower), 0x20000000))
                let right := sub(add(whole, 30), fraction)
                // Half of 2^right; nothing for a shift by nothing.
                power := shr(right, add(power, shr(1, shl(right, 1))))
            }
        }
    }
}
