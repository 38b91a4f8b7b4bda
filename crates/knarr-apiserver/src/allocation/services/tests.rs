use super::*;

fn allocator() -> ServiceAllocator {
    let range = AddressRange::new("10.0.0.0/28".parse().unwrap());
    ServiceAllocator::new(range, PortRange { first: 30000, last: 30003 }, crate::testing::Memory::new())
}

fn service(name: &str, spec: Value) -> Object {
    json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec})
}

async fn create(allocator: &ServiceAllocator, service: &mut Object) -> Result<(), StatusError> {
    let reservation = allocator.begin(service, None, false).await?;
    if let Some(reservation) = reservation {
        reservation.commit().await;
    }
    Ok(())
}

#[tokio::test]
async fn an_address_is_nobody_elses_until_it_is_released() {
    let allocator = allocator();
    let mut first = service("x", json!({"type": "ClusterIP"}));
    create(&allocator, &mut first).await.unwrap();
    assert_eq!(first["spec"]["clusterIPs"], json!([first["spec"]["clusterIP"]]));
    assert_eq!(first["spec"]["ipFamilyPolicy"], "SingleStack");
    let mut second = service("y", json!({"clusterIP": first["spec"]["clusterIP"]}));
    let error = create(&allocator, &mut second).await.unwrap_err();
    assert!(error.message.ends_with("provided IP is already allocated"), "{error}");
    allocator.released(&first).await;
    create(&allocator, &mut second).await.unwrap();
}

#[tokio::test]
async fn a_failed_write_and_a_dry_run_keep_nothing() {
    let allocator = allocator();
    for _ in 0..40 {
        drop(
            allocator
                .begin(&mut service("x", json!({"type": "NodePort", "ports": [{"port": 1}]})), None, false)
                .await
                .unwrap(),
        );
        allocator
            .begin(&mut service("x", json!({"type": "NodePort", "ports": [{"port": 1}]})), None, true)
            .await
            .unwrap();
        allocator.settled().await;
    }
}

#[tokio::test]
async fn node_ports_are_in_range_and_unique() {
    let allocator = allocator();
    let mut out_of_range =
        service("x", json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 80, "protocol": "TCP"}]}));
    let error = create(&allocator, &mut out_of_range).await.unwrap_err();
    assert!(error.message.contains(
        "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-30003"
    ));
    let both = json!({"type": "NodePort", "ports": [
        {"port": 53, "nodePort": 30001, "protocol": "TCP"}, {"port": 53, "nodePort": 30001, "protocol": "UDP"}]});
    create(&allocator, &mut service("dns", both)).await.unwrap();
    let mut taken =
        service("y", json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30001, "protocol": "TCP"}]}));
    assert!(create(&allocator, &mut taken).await.unwrap_err().message.ends_with("provided port is already allocated"));
}

#[tokio::test]
async fn ports_of_one_number_share_a_node_port() {
    let allocator = allocator();
    let ports =
        json!([{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}, {"port": 54, "protocol": "TCP"}]);
    let mut dns = service("dns", json!({"type": "NodePort", "ports": ports}));
    create(&allocator, &mut dns).await.unwrap();
    let node_port = |i: usize| dns["spec"]["ports"][i]["nodePort"].clone();
    assert!(node_port(0).is_i64() && node_port(0) == node_port(1) && node_port(1) != node_port(2), "{dns}");
}

#[tokio::test]
async fn a_changed_service_names_each_node_port_once() {
    let allocator = allocator();
    let port = |name: &str| json!({"name": name, "port": 1, "protocol": "TCP", "nodePort": 30001});
    let mut old = service("x", json!({"type": "NodePort", "ports": [port("a")]}));
    create(&allocator, &mut old).await.unwrap();
    let mut new = service("x", json!({"type": "NodePort", "ports": [port("a"), port("b")]}));
    let error = allocator.begin(&mut new, Some(&old), false).await.err().unwrap();
    assert_eq!(error.message, "duplicate nodePort: {TCP 30001}");
}

#[tokio::test]
async fn a_dry_run_asks_only_what_is_taken() {
    let allocator = allocator();
    let of = |port: i64| {
        service("x", json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": port, "protocol": "TCP"}]}))
    };
    for port in [80, 30001, 30001] {
        allocator.begin(&mut of(port), None, true).await.unwrap();
    }
    create(&allocator, &mut of(30001)).await.unwrap();
    assert!(allocator.begin(&mut of(30001), None, true).await.is_err());
}

#[tokio::test]
async fn an_update_keeps_its_numbers_and_gives_up_what_it_drops() {
    let allocator = allocator();
    let mut old = service("x", json!({"type": "NodePort", "ports": [{"port": 1, "protocol": "TCP"}]}));
    create(&allocator, &mut old).await.unwrap();
    let port = old["spec"]["ports"][0]["nodePort"].clone();
    let mut new = old.clone();
    allocator.begin(&mut new, Some(&old), false).await.unwrap().unwrap().commit().await;
    assert_eq!((&new["spec"]["ports"][0]["nodePort"], &new["spec"]["clusterIP"]), (&port, &old["spec"]["clusterIP"]));
    let mut internal = old.clone();
    internal["spec"]["type"] = "ClusterIP".into();
    internal["spec"]["ports"] = json!([{"port": 1, "protocol": "TCP"}]);
    allocator.begin(&mut internal, Some(&new), false).await.unwrap().unwrap().commit().await;
    let mut other =
        service("y", json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": port, "protocol": "TCP"}]}));
    create(&allocator, &mut other).await.unwrap();
}

#[tokio::test]
async fn families_follow_the_cluster() {
    let allocator = allocator();
    let mut dual = service("x", json!({"ipFamilyPolicy": "RequireDualStack"}));
    let error = create(&allocator, &mut dual).await.unwrap_err();
    assert_eq!(error.details.unwrap().causes[0].field, "spec.ipFamilyPolicy");
    let mut headless = service("x", json!({"clusterIP": "None"}));
    create(&allocator, &mut headless).await.unwrap();
    assert_eq!(headless["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
}
