//! One story for every chain: deploy, serve, pay, govern. Nothing in it can tell which chain it is on.

mod disputes;

use std::collections::BTreeMap;

use assay_chain::{
    AddressBook, AuditTerms, Authorization, Beneficiaries, Chain, ChainError, Claim, Client,
    Contract, DisputeTerms, Event, FirstSeat, Seating, Settings, SignedToken, Span, Value, deploy,
    survey,
};
use assay_protocol::{Address, Amount, B256, ChainId, Channel, Key, U256, Voucher, keccak256};

/// The first accounts of the public test mnemonic, which development chains fund.
const KEYS: [&str; 3] = [
    "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
];

pub(crate) const ASY: u128 = 1_000_000_000_000_000_000;

pub(crate) fn key(n: usize) -> Key {
    let bytes: B256 = KEYS[n].parse().unwrap();
    Key::from_bytes(bytes.0).unwrap()
}

pub(crate) fn settings(admin: Address) -> Settings {
    Settings {
        admin,
        delay: 0,
        treasury: Address::repeat_byte(0xa1),
        fee_recipient: Address::repeat_byte(0xa2),
        values: BTreeMap::from([(Value::DisputeWindow, U256::from(1))]),
        start: 0,
        beneficiaries: Beneficiaries::all(admin),
        seats: vec![FirstSeat {
            key: B256::repeat_byte(1),
            owner: admin,
            socket: "127.0.0.1:1".into(),
        }],
        disputes: DisputeTerms { clock: 10, ..DisputeTerms::default() },
        audits: AuditTerms::default(),
    }
}

/// Everything, on the development chain at `url`.
pub(crate) async fn told(url: &str) {
    let admin = key(0);
    let client = Client::connect(url, Some(&admin)).await.unwrap();
    let mut book = AddressBook::new(client.chain_id(), client.genesis(), settings(admin.address()));
    deployed(&client, &mut book).await;
    let chain = Chain::open(url, book.clone(), Some(&admin)).await.unwrap();
    seated(url, &book, &chain).await;
    usual_values_are_the_contracts(&chain).await;
    released(&chain).await;
    authorized(&chain, &admin).await;
    let owner = provides(url, &book, &chain).await;
    let (channel, claimed) = paid(url, &book, &chain, owner).await;
    disputes::told(url, &book, &chain, &channel, claimed).await;
    governed(&chain).await;
}

/// Money moves by a signature, and only the very transfer that was signed is found by it.
async fn authorized(chain: &Chain, payer: &Key) {
    let token = chain.book().get(Contract::AssayToken).unwrap();
    let signed = SignedToken {
        name: "Assay".into(),
        version: "1".into(),
        chain: ChainId(chain.client().chain_id()),
        address: token,
    };
    let authorization = Authorization {
        from: payer.address(),
        to: Address::repeat_byte(0xa3),
        value: U256::from(5),
        valid_after: U256::ZERO,
        valid_before: U256::MAX,
        nonce: B256::repeat_byte(3),
    };
    let signature = payer.sign(authorization.digest(&signed));
    let find = async |authorization: &Authorization| {
        chain.authorized_transfer(token, authorization, 1_000).await.unwrap()
    };
    assert_eq!(find(&authorization).await, None);
    let mined = chain.transfer_authorized(token, &authorization, &signature).await.unwrap();
    assert_eq!(find(&authorization).await, Some(mined.hash));
    // Another transfer that would use the same nonce did not happen.
    let dearer = Authorization { value: U256::from(6), ..authorization.clone() };
    let elsewhere = Authorization { to: Address::ZERO, ..authorization };
    assert_eq!((find(&dearer).await, find(&elsewhere).await), (None, None));
}

/// Deploys twice: the second time finds everything, also for someone who lost the book.
async fn deployed(client: &Client, book: &mut AddressBook) {
    let before = survey(client, book).await.unwrap();
    assert!(before.contracts.iter().all(|place| place.missing.is_some()));
    let mut made = 0;
    deploy(client, book, |_, _, mined| made += usize::from(mined.is_some())).await.unwrap();
    assert_eq!(made, Contract::ALL.len() - 1, "the distribution makes the token");
    let mut again = AddressBook::new(book.chain_id, book.genesis, book.settings.clone());
    deploy(client, &mut again, |contract, _, mined| assert!(mined.is_none(), "{contract}"))
        .await
        .unwrap();
    assert_eq!(again, *book);
    assert_eq!(survey(client, book).await.unwrap().gas(), 0);

    let mut foreign = book.clone();
    foreign.genesis = B256::ZERO;
    let refused = deploy(client, &mut foreign, |_, _, _| {}).await;
    assert!(matches!(refused, Err(ChainError::OtherChain { .. })), "{refused:?}");
}

/// The admin, and nobody else, has disputes judged; a second time changes nothing.
async fn seated(url: &str, book: &AddressBook, admin: &Chain) {
    let stranger = Chain::open(url, book.clone(), Some(&key(2))).await.unwrap();
    let awaits = Seating::Awaits { admin: key(0).address() };
    assert_eq!(stranger.seat_arbiter().await.unwrap(), awaits);
    for _ in 0..2 {
        assert_eq!(admin.seat_arbiter().await.unwrap(), Seating::Seated);
    }
    assert_eq!(admin.arbiter().await.unwrap(), book.get(Contract::Disputes).unwrap());
}

async fn usual_values_are_the_contracts(chain: &Chain) {
    for value in Value::ALL {
        let expected = match value {
            Value::DisputeWindow => U256::from(1),
            _ => value.usual(),
        };
        assert_eq!(chain.value(value).await.unwrap(), expected, "{value:?}");
    }
}

/// The parts that are free at the start reach the admin.
async fn released(chain: &Chain) {
    let admin = chain.client().account().unwrap();
    assert_eq!(chain.asy_supply().await.unwrap(), Amount(1_000_000_000 * ASY));
    chain.release_part(assay_chain::Part::Liquidity).await.unwrap();
    assert_eq!(chain.asy_of(admin).await.unwrap(), Amount(50_000_000 * ASY));
}

/// Somebody stakes and serves; returns the owner.
async fn provides(url: &str, book: &AddressBook, admin: &Chain) -> Address {
    let owner = key(1);
    admin.send_asy(owner.address(), Amount(20_000 * ASY)).await.unwrap();
    let chain = Chain::open(url, book.clone(), Some(&owner)).await.unwrap();
    assert_eq!(chain.provider(owner.address()).await.unwrap(), None);

    let operator = Key::from_bytes([5; 32]).unwrap();
    chain.register(&operator, "http://127.0.0.1:1").await.unwrap();
    let again = chain.register(&operator, "http://127.0.0.1:1").await;
    let Err(ChainError::Refused(refusal)) = again else { panic!("{again:?}") };
    assert!(refusal.reason.starts_with("AlreadyRegistered"), "{refusal}");

    assert!(!chain.is_active(owner.address()).await.unwrap());
    chain.stake(Amount(10_000 * ASY)).await.unwrap();
    assert!(chain.is_active(owner.address()).await.unwrap());
    let provider = chain.provider(owner.address()).await.unwrap().unwrap();
    assert_eq!(provider.operator, operator.address());
    assert_eq!(provider.bonded, Amount(10_000 * ASY));
    assert_eq!(provider.tier, assay_chain::Tier::Silver);
    assert_eq!(chain.owner_of(operator.address()).await.unwrap(), Some(owner.address()));
    assert_eq!(chain.owners(0, 10).await.unwrap(), [owner.address()]);
    owner.address()
}

/// One answer is paid: deposit, voucher, claim, receipts, release. Returns the channel, and what is claimed.
async fn paid(url: &str, book: &AddressBook, admin: &Chain, owner: Address) -> (Channel, Amount) {
    let buyer = key(2);
    admin.send_asy(buyer.address(), Amount(100 * ASY)).await.unwrap();
    let buying = Chain::open(url, book.clone(), Some(&buyer)).await.unwrap();
    let selling = Chain::open(url, book.clone(), Some(&key(1))).await.unwrap();
    let till = selling.till_of(owner).await.unwrap();
    selling.open_till(owner).await.unwrap();
    let channel = Channel {
        payer: buyer.address(),
        payer_authorizer: buyer.address(),
        receiver: till,
        receiver_authorizer: owner,
        token: book.get(Contract::AssayToken).unwrap(),
        withdraw_delay: 900,
        salt: B256::ZERO,
    };
    buying.deposit(&channel, Amount(100 * ASY)).await.unwrap();
    let channels = buying.channels().unwrap();
    let id = channel.id(&channels);
    assert_eq!(buying.channel(id).await.unwrap().balance, Amount(100 * ASY));

    let price = Amount(10 * ASY);
    let voucher = Voucher { channel: id, claimable: price };
    let claim = Claim {
        channel: channel.clone(),
        claimable: price,
        signature: voucher.sign(&channels, &buyer),
        claimed: price,
    };
    // A row that is no good leaves the good one alone.
    let forged = Claim { signature: voucher.sign(&channels, &key(0)), ..claim.clone() };
    selling.claim(&[forged, claim]).await.unwrap();
    assert_eq!(buying.channel(id).await.unwrap().claimed, price);

    let span = Span { channel: id, before: Amount(0), after: price };
    selling.post(owner, keccak256("receipts"), 1, &[span]).await.unwrap();
    assert_eq!(selling.covered(owner, id).await.unwrap(), price);
    assert_eq!(selling.periods(owner).await.unwrap(), 1);

    // The dispute window, a second here, begins when the claim is seen, and passes with the next blocks.
    let held = selling.asy_of(owner).await.unwrap();
    selling.release(&channel).await.unwrap();
    assert_eq!(selling.asy_of(owner).await.unwrap(), held);
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    selling.release_all(channel.receiver, std::slice::from_ref(&channel)).await.unwrap();
    let earned = selling.asy_of(owner).await.unwrap().0 - held.0;
    assert_eq!(earned, price.0 * 93 / 100);
    assert_eq!(selling.asy_of(Address::repeat_byte(0xa2)).await.unwrap().0, price.0 * 2 / 100);
    assert_eq!(selling.asy_of(Address::repeat_byte(0xa1)).await.unwrap().0, price.0 * 5 / 100);
    assert_eq!(selling.paid_out(till, id).await.unwrap(), price);

    let latest = buying.height().await.unwrap();
    let events: Vec<Event> =
        buying.events(0, latest).await.unwrap().into_iter().map(|found| found.event).collect();
    assert!(events.contains(&Event::Claimed { channel: id, claimed: price }), "{events:?}");
    assert!(events.contains(&Event::TillOpened { owner, till }));
    let posted =
        |event: &Event| matches!(event, Event::Posted { provider, .. } if *provider == owner);
    assert!(events.iter().any(posted));
    (channel, price)
}

/// A value and an office change through the timelock, and only through it.
async fn governed(chain: &Chain) {
    let judge = Address::repeat_byte(0xbb);
    let decision = chain.set_arbiter(judge, B256::ZERO).unwrap();
    let early = chain.execute(&decision).await;
    assert!(matches!(early, Err(ChainError::Refused(_))), "{early:?}");
    chain.schedule(&decision).await.unwrap();
    chain.execute(&decision).await.unwrap();
    assert_eq!(chain.arbiter().await.unwrap(), judge);
    // What governance decided is not undone by running a deployment again.
    assert_eq!(chain.seat_arbiter().await.unwrap(), Seating::Other { arbiter: judge });

    let too_much = chain.set_value(Value::NetworkFee, U256::from(501), B256::ZERO).unwrap();
    chain.schedule(&too_much).await.unwrap();
    let refused = chain.execute(&too_much).await;
    let Err(ChainError::Refused(refusal)) = refused else { panic!("{refused:?}") };
    assert!(refusal.reason.starts_with("OutOfBounds"), "{refusal}");
}
